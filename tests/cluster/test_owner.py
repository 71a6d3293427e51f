"""One process attends to a folder, without any lock of the file system."""

import json
import os
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from bench.cluster.owner import OWNER, SILENT_S, Attended, attend
from bench.errors import UserError
from tests.conftest import wait_for

HOLD = """
import sys, time
from pathlib import Path
from bench.cluster.owner import attend
with attend(Path(sys.argv[1])):
    print("mine", flush=True)
    time.sleep(60)
"""


def test_the_second_is_told_who_has_it_and_the_dead_leave_it(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert other.stdout and other.stdout.readline() == b"mine\n"
        with pytest.raises(Attended, match=f"process {other.pid} on"), attend(tmp_path):
            pass
        assert (tmp_path / OWNER).exists(), "it stays the other's"
    finally:
        other.kill()
        other.wait()
    with attend(tmp_path):
        assert json.loads((tmp_path / OWNER).read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_who_was_taken_for_dead_hears_of_it_and_leaves_the_file(tmp_path: Path) -> None:
    with attend(tmp_path) as first:
        first.beat()
        os.utime(tmp_path / OWNER, (1, 1))  # as if it had been stopped for long
        with attend(tmp_path) as second:
            with pytest.raises(Attended, match=f"process {os.getpid()} on"):
                first.beat()
            second.beat()
        with pytest.raises(Attended, match="somebody"):
            first.beat()
        (tmp_path / OWNER).write_text("a third one's")
    assert (tmp_path / OWNER).exists(), "it removes nothing but its own"


@pytest.mark.parametrize("pid, taken", [(1, True), (2**53, False)])
def test_a_process_that_cannot_be_seen_lives_all_the_same(tmp_path: Path, pid: int, taken: bool) -> None:
    """As on login nodes that hide the processes of others in /proc."""
    (tmp_path / OWNER).write_text(json.dumps({"host": socket.gethostname(), "pid": pid, "user": "ann"}))
    with pytest.raises(Attended, match="ann") if taken else nullcontext(), attend(tmp_path):
        pass


@pytest.mark.parametrize("ago, taken", [(SILENT_S - 60, True), (SILENT_S + 60, False)])
def test_an_owner_on_another_machine_lives_while_it_beats(tmp_path: Path, ago: float, taken: bool) -> None:
    path = tmp_path / OWNER
    path.write_text(json.dumps({"host": "elsewhere", "pid": 1, "user": "ann"}))
    now = path.stat().st_mtime
    os.utime(path, (now - ago, now - ago))
    if taken:
        with pytest.raises(Attended, match="ann, process 1 on elsewhere"), attend(tmp_path):
            pass
    else:
        with attend(tmp_path) as owner:
            os.utime(path, (now - 900, now - 900))
            owner.beat()
            assert path.stat().st_mtime > now - 60


def test_of_many_one_has_it(tmp_path: Path) -> None:
    path = tmp_path / OWNER
    path.write_text("left by a process that died before it could write it out")
    os.utime(path, (1, 1))
    others = [subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL) for _ in range(6)]  # fmt: skip
    try:
        wait_for(lambda: sum(p.poll() is None for p in others) == 1, 30)
    finally:
        for p in others:
            p.kill()
            p.wait()


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Pass a folder of your own"), attend(tmp_path / "nothing"):
        pass
