"""--on local: jobs that outlive the terminal they were started from, and are known from everywhere on this machine."""

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from bench.cluster.backend import Backend, JobState, Options, Unreachable, backend
from tests.cluster.payloads import Noted, until
from tests.conftest import ROOT, is_running, wait_for

HOST = socket.gethostname()
SUBMIT = """
import json, sys, time
from pathlib import Path
from bench.cluster.backend import Options, backend
from tests.cluster.payloads import Noted
jobs, notes = map(Path, sys.argv[1:])
print(json.dumps(backend("local", jobs).submit([Noted(notes, wait=True)], Options())), flush=True)
time.sleep(600)
"""


pytestmark = pytest.mark.slow  # real processes, which wait for one another


@pytest.fixture
def here(tmp_path: Path) -> Backend:
    return backend("local", tmp_path / "a folder's" / "jobs")


def test_each_job_sees_its_own_gpu(here: Backend, tmp_path: Path) -> None:
    here.check()
    payloads = [Noted(tmp_path / f"notes{gpu}", wait=True, gpu=gpu) for gpu in (0, 3, None)]
    payloads.append(Noted(tmp_path / "failing", status=3))
    options = Options(python=f"env MARK=here {sys.executable}")
    ids = here.submit(payloads, options)
    assert [p.called()["CUDA_VISIBLE_DEVICES"] for p in payloads[:3]] == ["0", "3", ""]
    assert [here.states(ids)[i] for i in ids[:3]] == [JobState("running", HOST)] * 3
    assert until(here, ids[3], "ended") == JobState("ended", HOST, how="failed")
    for payload, job in zip(payloads[:3], ids, strict=False):
        payload.go()
        assert until(here, job, "ended") == JobState("ended", HOST, how="completed")
        assert "call 1" in here.log(job).read_text()
    assert {(p.called()["cwd"], p.called()["MARK"]) for p in payloads} == {(str(ROOT), "here")}


def test_jobs_outlive_who_submitted_them(here: Backend, tmp_path: Path) -> None:
    """Ctrl-C and a terminal that closes reach the submitting process and its group, and its pipes close with it."""
    payload = Noted(tmp_path / "notes", wait=True)
    command = [sys.executable, "-c", SUBMIT, str(tmp_path / "a folder's" / "jobs"), str(payload.notes)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, start_new_session=True) as submitting:
        assert submitting.stdout
        (job,) = json.loads(submitting.stdout.readline())
        payload.called()
        for number in (signal.SIGHUP, signal.SIGINT):
            os.killpg(submitting.pid, number)
        assert submitting.stdout.read() == b""
    assert here.states([job]) == {job: JobState("running", HOST)}
    here.cancel([job])
    assert until(here, job, "ended").how == "cancelled"
    wait_for(lambda: not is_running(payload.called()["pid"]))
    here.cancel([job])


def test_killed_ones(here: Backend, tmp_path: Path) -> None:
    first, second = payloads = [Noted(tmp_path / f"notes{i}", wait=True) for i in range(2)]
    ids = here.submit(payloads, Options())
    os.kill(first.called()["pid"], signal.SIGKILL)
    assert until(here, ids[0], "ended").how == "failed"

    pid = second.called()["pid"]
    controller = psutil.Process(pid).ppid()
    os.kill(controller, signal.SIGKILL)
    wait_for(lambda: not is_running(controller))
    assert here.states(ids)[ids[1]].word == "running", "it measures on, whoever watches it"
    here.cancel(ids)
    assert until(here, ids[1], "ended").how == "cancelled"
    wait_for(lambda: not is_running(pid))
    assert here.states(ids)[ids[0]].how == "failed", "it had ended before"


def test_a_checkpoint_begins_the_same_job_again(here: Backend, tmp_path: Path) -> None:
    payload = Noted(tmp_path / "notes", wait=True)
    (job,) = here.submit([payload], replace(Options(), retries=0))
    os.kill(payload.called()["pid"], signal.SIGUSR2)
    payload.called(2)
    assert here.states([job])[job].word == "running" and payload.checkpoints() == 1
    payload.go()
    assert until(here, job, "ended").how == "completed"
    assert "call 1" in here.log(job).read_text() and "call 2" in here.log(job).read_text()


def test_a_number_that_went_to_another_process_is_not_the_job(here: Backend, tmp_path: Path) -> None:
    payload = Noted(tmp_path / "notes", wait=True)
    (job,) = here.submit([payload], Options())
    _, pid, _ = job.split("-", 2)
    elsewhere = backend("local", tmp_path / "another" / "jobs")
    with subprocess.Popen(["sleep", "600"]) as other:
        recycled = f"1-{other.pid}-{HOST}"
        assert here.states([recycled])[recycled].word == "ended"
        assert elsewhere.states([job])[job].word == "ended", "a controller, of another folder"
        (second,) = here.submit([Noted(tmp_path / "second")], Options())
        foreign = f"{second.partition('-')[0]}-{pid}-{HOST}"
        assert here.states([foreign])[foreign].word == "ended", "a controller, of another submission"
        here.cancel([recycled, foreign])
        elsewhere.cancel([job])
        assert other.poll() is None and here.states([job])[job].word == "running"
        other.kill()
    payload.go()
    assert until(here, job, "ended").how == "completed"


def test_jobs_of_another_machine_are_not_taken_for_ended(here: Backend) -> None:
    for ask in (here.states, here.cancel):
        with pytest.raises(Unreachable, match="the jobs run on another-host, and this is"):
            ask(["1-4711-another-host"])
