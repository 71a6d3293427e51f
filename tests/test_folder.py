"""The folder that a command writes into: what cannot be one, and one process at a time in it."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.errors import UserError
from bench.folder import hold, usable
from bench.locks import Taken
from tests.conftest import ROOT

KINDS = {
    "file": Path.touch,
    "fifo": os.mkfifo,
    "dangling link": lambda path: path.symlink_to("nowhere"),
    "loop": lambda path: path.symlink_to(path),
    "device": lambda path: path.symlink_to("/dev/null"),
    "socket": lambda path: socket.socket(socket.AF_UNIX).bind(str(path)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's name must be short
    plant: Any = KINDS[kind]
    plant(Path("x"))
    for folder in (Path("x"), tmp_path / "x", tmp_path / "x" / "below" / "it"):
        with pytest.raises(UserError, match=r"^--out .*x.*Pass a folder, new or from an earlier run\.$") as error:
            usable("--out", folder)
        assert str(folder) in str(error.value)
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("name", ["/", "/..", "//", "/tmp/.."])
def test_the_root_of_the_file_system_is_no_results_folder(name: str) -> None:
    with pytest.raises(UserError, match=r"^--out /.*: this is the root of the file system"):
        usable("--out", Path(name))


def test_a_name_that_no_file_can_have_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="File name too long"):
        usable("--out", tmp_path / ("x" * 300))


def test_a_folder_may_be_new_or_there(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "a" / "b", Path("surely/new")):
        assert usable("--out", folder) == folder
    assert not list(tmp_path.iterdir())


def test_a_refusal_leaves_nothing_behind(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "mine").touch()
    for folder, left in ((tmp_path / "a" / "b", None), (there, ["mine"])):
        with pytest.raises(UserError), hold(folder):
            assert (folder / ".lock").is_file()
            raise UserError("no")
        assert [p.name for p in folder.iterdir()] == left if left else not (tmp_path / "a").exists()


def test_what_was_put_into_it_stays_and_so_does_the_lock(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    with pytest.raises(KeyboardInterrupt), hold(folder):
        (folder / "rows").touch()
        raise KeyboardInterrupt
    with hold(folder):
        pass
    with pytest.raises(UserError), hold(folder):
        raise UserError("no")
    assert sorted(p.name for p in folder.iterdir()) == [".lock", "rows"]
    assert (folder / ".lock").stat().st_mode & 0o777 == 0o666


@pytest.mark.parametrize("plant", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/null")])
def test_a_planted_lock_is_an_error_and_not_a_wait(tmp_path: Path, plant: Any) -> None:
    plant(tmp_path / ".lock")
    with pytest.raises(UserError, match=rf"^--out {tmp_path}: {tmp_path}/\.lock: it is "), hold(tmp_path):
        raise AssertionError
    assert os.path.lexists(tmp_path / ".lock")


WAITS = """
import sys
from pathlib import Path
from bench.folder import hold
folder = Path(sys.argv[1])
with hold(folder, lambda process: print(process, flush=True)):
    (folder / "second").touch()
"""


def test_a_second_process_is_refused_or_waits_even_for_a_folder_that_goes(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with pytest.raises(UserError), hold(folder):
        with pytest.raises(Taken, match=f"^{os.getpid()}$"), hold(folder):
            raise AssertionError
        command = [sys.executable, "-c", WAITS, str(folder)]
        second = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert second.stdout and second.stdout.readline() == f"{os.getpid()}\n"
        raise UserError("refused: the folder and its lock go")
    assert second.wait(30) == 0
    second.stdout.close()
    assert sorted(p.name for p in folder.iterdir()) == [".lock", "second"]


EACH = """
import sys
from pathlib import Path
from bench.folder import hold
folder = Path(sys.argv[1])
for i in range(40):
    try:
        with hold(folder, lambda process: None):
            path = folder / "busy"
            path.touch(exist_ok=False)
            path.unlink()
            if i % 2:
                raise KeyError
    except KeyError:
        pass
"""


def test_never_two_at_once_where_the_folder_comes_and_goes(tmp_path: Path) -> None:
    command = [sys.executable, "-c", EACH, str(tmp_path / "a" / "b")]
    every = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    assert [p.communicate(timeout=60)[1] for p in every] == [""] * 3
