"""What is read from disk: JSON lines whole, torn and damaged; files that are none; documents that would eat memory."""

import gzip
import os
import socket
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.files import append_json_lines
from bench.reading import read_bytes, read_json, read_json_lines, read_object, read_text, shape_of

LINES = [{"a": 1}, {"a": 2}, {"a": [3.5, None]}]


def test_what_was_appended_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    assert read_json_lines(path) == ([], None)
    append_json_lines(path, LINES[:1])
    append_json_lines(path, LINES[1:])
    assert read_json_lines(path) == (LINES, None)
    packed = tmp_path / "x.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_json_lines(packed) == (LINES, None)


def test_a_file_cut_anywhere_has_its_whole_lines_and_the_place_of_the_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    append_json_lines(path, LINES)
    data = path.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == ord("\n")]
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends)
        torn = None if cut in (0, *ends) else [0, *ends][whole]
        assert read_json_lines(path) == (LINES[:whole], torn)


@pytest.mark.parametrize("damage", ["{broken", "[]", "3", "\udc80", '{"b": 1}'])
def test_a_damaged_line_is_refused_with_its_number(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.jsonl"
    for after in ("", '{"a": 2}\n'):
        path.write_bytes(f'{{"a": 1}}\n\n{damage}\n{after}'.encode(errors="surrogateescape"))
        with pytest.raises(UserError, match=r"x\.jsonl:3: damaged line: .*Mend"):
            read_json_lines(path, shape_of({"a": int}, ("a",)))


@pytest.mark.parametrize("data", [b"\x1f\x8b", gzip.compress(b'{"a": 1}\n', mtime=0)[:-4], b'{"a": 1}\n'])
def test_what_cannot_be_unpacked_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.jsonl.gz").write_bytes(data)
    with pytest.raises(UserError, match=r"x\.jsonl\.gz: the file cannot be unpacked"):
        read_json_lines(tmp_path / "x.jsonl.gz")


def test_only_plain_files_are_read_and_nobody_waits_at_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name, said in (
            ("pipe", "a named pipe"), ("folder", "a folder"), ("socket", "cannot be read"), ("missing", "No such file"),
            ("a\0b", "null byte"),
        ):  # fmt: skip
            with pytest.raises(UserError, match=said):
                read_bytes(tmp_path / name)
    with pytest.raises(UserError, match="this is a device"):
        read_text(Path("/dev/zero"))


def test_a_file_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "long"
    path.write_bytes(b"12345")
    assert read_bytes(path, 5) == b"12345"
    with pytest.raises(UserError, match="longer than 4 bytes"):
        read_bytes(path, 4)


def test_a_small_file_that_unpacks_to_gigabytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b" " * 5000 + b"\n"))
    monkeypatch.setattr("bench.reading.LARGEST", 1000)
    with pytest.raises(UserError, match="unpacked it is longer than 1000 bytes"):
        read_json_lines(path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("{", "not valid JSON"),
        ("9" * 5000, "not valid JSON"),
        ("\udcff", "not UTF-8"),
    ],
)
def test_a_document_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=said) as refused:
        read_json(path)
    assert "\n" not in str(refused.value)


def test_a_field_is_named_with_what_was_found(tmp_path: Path) -> None:
    path, shape = tmp_path / "x.json", shape_of({"n": int, "name": str}, ("n",))
    for text, said in (
        ('{"n": "1"}', "x.json: n is '1': Input should be a valid integer"), ("{}", "x.json: n: Field required"),
        ('{"n": 1, "name": [2]}', "x.json: name is [2]: Input should be a valid string"), ("[1]", "found a list"),
    ):  # fmt: skip
        path.write_text(text)
        with pytest.raises(UserError) as refused:
            read_object(path, shape)
        assert said in str(refused.value)
    path.write_text('{"n": 1, "name": null, "other": {}}')
    assert read_object(path, shape) == {"n": 1, "name": None, "other": {}}
