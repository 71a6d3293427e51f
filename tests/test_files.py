"""Files that survive: lines and whole files on a full disk, and what moves aside."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.errors import UserError
from bench.files import append_json_lines, complete_move, move_was_cut_off, replace_file, set_aside
from tests.conftest import ROOT

LINES = [{"a": 1}, {"a": 2}, {"a": [3.5, None]}]


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


def write(folder: Path, *names: str) -> list[Path]:
    for name in names:
        (folder / name).write_text(json.dumps(name))
    return [folder / name for name in names]


def held(folder: Path) -> dict[str, bytes]:
    """The plain files below a folder with their content, by their path in it."""
    every = (p for p in sorted(folder.rglob("*")) if p.is_file() and not p.is_symlink())
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in every}


def test_what_is_set_aside_never_overwrites_what_was(tmp_path: Path) -> None:
    first = set_aside(tmp_path, "run", write(tmp_path, "a", "b"))
    assert first == tmp_path / "earlier" / "run" and {p.name for p in first.iterdir()} == {"a", "b"}
    completed = set_aside(tmp_path, "run", write(tmp_path, "c"))
    assert completed == first, "a move that was cut off is completed"
    (tmp_path / "b").write_text("another")
    second = set_aside(tmp_path, "run", [tmp_path / "b"])
    assert second.name == "run-2" and (second / "b").read_text() == "another" and (first / "b").read_text() == '"b"'
    assert {p.name for p in tmp_path.iterdir()} == {"earlier"}


def full(path: Path) -> None:
    """A record that was copied back, with notes."""
    path.mkdir()
    (path / "run.json").write_text("noted by hand")


def half(path: Path) -> None:
    """A part of one, in a folder that is not empty."""
    (path / "logs").mkdir(parents=True)
    (path / "logs" / "x.log").write_text("noted by hand")


@pytest.mark.parametrize(
    "there",
    [full, half, Path.touch, os.mkfifo, lambda p: p.symlink_to("nowhere"), lambda p: p.symlink_to(p.parent.parent)],
)
def test_whatever_stands_in_earlier_is_left_alone(tmp_path: Path, there: Any) -> None:
    (tmp_path / "earlier").mkdir()
    there(tmp_path / "earlier" / "run")
    before = held(tmp_path / "earlier")
    for number in (2, 3):
        paths = [*write(tmp_path, "rows.jsonl"), tmp_path / "logs", *write(tmp_path, "run.json")]
        (tmp_path / "logs").mkdir()
        (tmp_path / ".lock").touch()
        assert set_aside(tmp_path, "run", [*paths, tmp_path / ".lock"]) == tmp_path / "earlier" / f"run-{number}"
        assert sorted(p.name for p in tmp_path.iterdir()) == [".lock", "earlier"], "the lock stays"
    after = held(tmp_path / "earlier")
    assert before.items() <= after.items() and len(after) == len(before) + 4


@pytest.mark.parametrize("there", [Path.touch, lambda path: path.symlink_to("nowhere")])
def test_where_earlier_is_no_folder_nothing_moves(tmp_path: Path, there: Any) -> None:
    there(tmp_path / "earlier")
    paths = write(tmp_path, "a", "b")
    with pytest.raises(OSError, match="earlier"):
        set_aside(tmp_path, "run", paths)
    assert all(path.exists() for path in paths)


def killed_before(step: int, folder: Path, paths: list[Path]) -> bool:
    """Sets paths aside in a process of its own, which is killed before one of its system calls; whether it was."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] != 0
    left = step

    def audit(event: str, _: object) -> None:
        nonlocal left
        left -= event in ("os.rename", "os.mkdir", "os.remove", "open")
        if left < 0:
            os._exit(9)

    try:
        sys.addaudithook(audit)
        set_aside(folder, "run", paths)
        left = 1000
        os._exit(0)
    finally:
        os._exit(1)


def test_a_move_is_completed_wherever_it_was_cut_off(tmp_path: Path) -> None:
    for step in range(30):
        folder = tmp_path / str(step)
        folder.mkdir()
        killed = killed_before(step, folder, write(folder, "a", "b", "c"))
        write(folder, "new")  # as by a version that knows nothing of it
        begun = move_was_cut_off(folder)
        complete_move(folder)
        moved = {p.name for p in folder.glob("earlier/run/*")}
        left = {p.name for p in folder.iterdir() if p.name != "earlier"}
        assert (moved, left) in (({"a", "b", "c"}, {"new"}), (set(), {"a", "b", "c", "new"})), step
        assert moved or not begun
        if not killed:
            break
    assert 6 < step < 29 and held(folder) == {f"earlier/run/{x}": json.dumps(x).encode() for x in "abc"} | {
        "new": b'"new"'
    }


@pytest.mark.parametrize(
    "note", ["[]", "{", '{"into": "..", "names": []}', '{"into": "x", "names": ["../y"]}', '{"into": 3, "names": []}']
)
def test_a_stranger_s_note_of_a_move_is_refused(tmp_path: Path, note: str) -> None:
    (tmp_path / "earlier").mkdir()
    (tmp_path / "earlier" / ".moving").write_text(note)
    with pytest.raises(UserError, match=r"\.moving: .*[Rr]emove it"):
        complete_move(tmp_path)
