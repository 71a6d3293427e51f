"""Files that survive: JSON lines torn and damaged, whole files on a full disk, and what moves aside."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.files import append_json_lines, read_json_lines, replace_file, set_aside
from tests.conftest import ROOT

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
        with pytest.raises(UserError, match=r"x\.jsonl:3: damaged line\. .*Mend"):
            read_json_lines(path, lambda o: o["a"])


@pytest.mark.parametrize("data", [b"\x1f\x8b", gzip.compress(b'{"a": 1}\n', mtime=0)[:-4], b'{"a": 1}\n'])
def test_what_cannot_be_unpacked_is_named(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.jsonl.gz").write_bytes(data)
    with pytest.raises(UserError, match=r"x\.jsonl\.gz: the file cannot be unpacked"):
        read_json_lines(tmp_path / "x.jsonl.gz")


def test_no_number_that_json_lacks_is_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        append_json_lines(tmp_path / "x.jsonl", [{"a": float("nan")}])
    assert not (tmp_path / "x.jsonl").exists()


FULL = """
import resource, signal, sys
from pathlib import Path
from bench.files import append_json_lines, replace_file
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
folder = Path(sys.argv[1])
for write in (lambda: append_json_lines(folder / "x.jsonl", [{"a": "x" * 2000}]),
              lambda: replace_file(folder / "y", "x" * 2000)):
    try:
        write()
    except OSError as e:
        print(e.strerror)
"""


def test_a_full_disk_leaves_the_files_as_they_were(tmp_path: Path) -> None:
    """Full by RLIMIT_FSIZE: the write itself fails, half way."""
    append_json_lines(tmp_path / "x.jsonl", LINES)
    replace_file(tmp_path / "y", "old")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["File too large"] * 2, done.stderr
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for content in ("Ünï", b"\x00\xff"):
        replace_file(tmp_path / "x", content)
        assert (tmp_path / "x").read_bytes() == (content if isinstance(content, bytes) else content.encode())
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_what_is_set_aside_never_overwrites_what_was(tmp_path: Path) -> None:
    def write(*names: str) -> list[Path]:
        for name in names:
            (tmp_path / name).write_text(json.dumps(name))
        return [tmp_path / name for name in names]

    first = set_aside(tmp_path, "run", write("a", "b"))
    assert first == tmp_path / "earlier" / "run" and {p.name for p in first.iterdir()} == {"a", "b"}
    completed = set_aside(tmp_path, "run", write("c"))
    assert completed == first, "a move that was cut off is completed"
    (tmp_path / "b").write_text("another")
    second = set_aside(tmp_path, "run", [tmp_path / "b"])
    assert second.name == "run-2" and (second / "b").read_text() == "another" and (first / "b").read_text() == '"b"'
    assert {p.name for p in tmp_path.iterdir()} == {"earlier"}
