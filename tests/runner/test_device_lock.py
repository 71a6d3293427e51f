"""The lock of a device: who waits is told for whom, and a killed holder frees it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bench.devices import Device
from bench.runner.lock import lock_path, only_run_on
from tests.conftest import ROOT

DEVICE = Device("test", "NVIDIA Test", 0, "GPU-lock-test")

HOLD = """
import sys, time
from bench.devices import Device
from bench.runner.lock import only_run_on
with only_run_on(Device("test", "NVIDIA Test", 0, "GPU-lock-test"), print):
    print("held", flush=True)
    time.sleep(600)
"""


def test_who_waits_is_told_for_whom_and_a_killed_holder_frees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said: list[str] = []
    command = [sys.executable, "-c", HOLD]
    env = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"

        def told(text: str) -> None:
            said.append(text)
            holder.send_signal(signal.SIGKILL)

        with only_run_on(DEVICE, told, poll_s=0.01):
            assert said == [f"another run (process {holder.pid}) is measuring on NVIDIA Test; waiting until it is done"]
            assert lock_path(DEVICE).parent == tmp_path
    assert holder.returncode == -signal.SIGKILL


def test_the_lock_is_free_again_when_its_holder_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    said: list[str] = []
    for _ in range(2):
        with only_run_on(DEVICE, said.append):
            pass
    assert said == [] and lock_path(DEVICE).stat().st_mode & 0o777 == 0o666, "every user of the machine may take it"
