"""The locks of a device: who waits is told for whom, a killed holder frees them, and nobody is shut out."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.devices import Device
from bench.errors import UserError
from bench.runner.lock import lock_paths, only_run_on
from tests.conftest import ROOT, wait_for

DEVICE = Device("test", "NVIDIA Test", 0, "GPU-lock-test")

HOLD = """
import os, sys, time
import bench.runner.lock as lock
from bench.devices import Device
lock.PLACES = sys.argv[1:]
os.umask(0o077)
with lock.only_run_on(Device("test", "NVIDIA Test", 0, "GPU-lock-test"), lambda text: print(text, flush=True)):
    print("held", flush=True)
    time.sleep(600)
"""


def holder(*places: object, **variables: object) -> "subprocess.Popen[str]":
    """A process that takes the locks in these places and then sleeps."""
    env = os.environ | {name: str(value) for name, value in variables.items()}
    command = [sys.executable, "-c", HOLD, *map(str, places)]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)


def says(process: "subprocess.Popen[str]") -> str:
    assert process.stdout
    return process.stdout.readline().strip()


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Two folders in place of /dev/shm and /tmp."""
    found = [tmp_path / "shm", tmp_path / "tmp"]
    for place in found:
        place.mkdir()
    monkeypatch.delenv("LORABENCH_LOCKS", raising=False)
    monkeypatch.setattr("bench.runner.lock.PLACES", tuple(map(str, found)))
    return found


def test_who_waits_is_told_for_whom_and_a_killed_holder_frees_it(places: list[Path]) -> None:
    said: list[str] = []
    with holder(*places) as other:
        assert says(other) == "held"

        def told(text: str) -> None:
            said.append(text)
            other.send_signal(signal.SIGKILL)

        with only_run_on(DEVICE, told):
            assert said == [f"another run (process {other.pid}) is measuring on NVIDIA Test; waiting until it is done"]
    assert other.returncode == -signal.SIGKILL
    assert {p.stat().st_mode & 0o777 for p in lock_paths(DEVICE)} == {0o666}, "every user may, whatever the umask was"


@pytest.mark.parametrize("hidden", [0, 1])
def test_one_place_in_common_keeps_two_runs_apart(places: list[Path], tmp_path: Path, hidden: int) -> None:
    """TMPDIR and a private /tmp or /dev/shm hide the others, as under Slurm and in containers."""
    (tmp_path / "private").mkdir()
    theirs = [tmp_path / "private" if i == hidden else place for i, place in enumerate(places)]
    with only_run_on(DEVICE, print), holder(*theirs, TMPDIR=tmp_path / "private") as other:
        assert f"another run (process {os.getpid()})" in says(other)
        other.kill()


def test_one_folder_can_be_named_and_is_one_for_all(places: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LORABENCH_LOCKS", str(places[0]))
    assert [p.parent for p in lock_paths(DEVICE)] == places[:1]
    monkeypatch.setenv("LORABENCH_LOCKS", str(places[0] / "nowhere"))
    with pytest.raises(UserError, match=r"LORABENCH_LOCKS .*nowhere: no folder"):
        lock_paths(DEVICE)


def test_without_a_place_it_is_the_temporary_folder(
    tmp_path: Path, places: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for place in places:
        place.rmdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert [p.parent for p in lock_paths(DEVICE)] == [tmp_path]


def link(path: Path) -> None:
    path.symlink_to(path.with_name("precious"))


PLANTED = {
    "link": link,
    "folder": Path.mkdir,
    "fifo": os.mkfifo,
    "loop": lambda path: path.symlink_to(path),
    "link to a device": lambda path: path.symlink_to("/dev/null"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_what_was_planted_is_passed_over_or_refused(places: list[Path], kind: str) -> None:
    plant: Any = PLANTED[kind]
    first, second = lock_paths(DEVICE)
    first.with_name("precious").write_text("precious")
    plant(first)
    said: list[str] = []
    with only_run_on(DEVICE, said.append):
        assert len(said) == 1 and said[0].startswith(f"{first}: ") and said[0].endswith("; passed over")
    second.unlink()
    plant(second)
    with pytest.raises(UserError, match=r"LORABENCH_LOCKS") as error, only_run_on(DEVICE, said.append):
        raise AssertionError
    assert str(first) in str(error.value) and str(second) in str(error.value)
    assert first.with_name("precious").read_text() == "precious" and len(said) == 1


def test_the_same_file_under_two_names_is_locked_once(places: list[Path]) -> None:
    first, second = lock_paths(DEVICE)
    first.touch()
    second.hardlink_to(first)
    with only_run_on(DEVICE, pytest.fail):
        pass


AS_NOBODY = """
import os, sys
import bench.runner.lock as lock
from bench.devices import Device
lock.PLACES = sys.argv[1:]
os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
with lock.only_run_on(Device("test", "NVIDIA Test", 0, "GPU-lock-test"), print):
    print("held")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs the right to be another user")
@pytest.mark.parametrize("mode", [0o666, 0o644, 0o600])
def test_another_user_s_file_shuts_nobody_out(tmp_path_factory: pytest.TempPathFactory, mode: int) -> None:
    """644: as an older version left it. A file that another user may not write is passed over, and said."""
    places = [tmp_path_factory.mktemp(name) for name in ("shm", "tmp")]
    for parent in [p for p in places[0].parents if p.owner() == "root" and "pytest" in str(p)]:
        parent.chmod(parent.stat().st_mode | 0o055)
    for place in places:
        place.chmod(0o1777)
    path = places[0] / f"lorabench-{DEVICE.uuid}.lock"
    path.touch()
    path.chmod(mode)
    command = [sys.executable, "-c", AS_NOBODY, *map(str, places)]
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.stderr == "" and done.stdout.splitlines()[-1] == "held"
    assert done.stdout.startswith(f"{path}: Permission denied; passed over") == (mode != 0o666)


def test_the_locks_are_free_again_when_their_holder_is_done(places: list[Path]) -> None:
    for _ in range(2):
        with only_run_on(DEVICE, pytest.fail):
            pass
    with holder(*places) as other:
        assert says(other) == "held"
        other.kill()
    wait_for(lambda: other.poll() is not None)
    assert [p.exists() for p in lock_paths(DEVICE)] == [True, True], "lock files stay"
