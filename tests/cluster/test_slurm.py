"""--on slurm, against a real Slurm: what submitting, watching and cancelling jobs come to."""

import os
import pickle
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.cluster.backend import Backend, JobState, Options, Unreachable, backend
from bench.errors import UserError
from tests.cluster.payloads import Noted, until
from tests.cluster.real_slurm import RealSlurm
from tests.conftest import ROOT, wait_for

CPU = Options(needs_gpu=False, minutes=60)


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    return tmp_path / "a folder's" / "jobs"


@pytest.fixture
def here(slurm: RealSlurm, jobs: Path) -> Backend:
    return backend("slurm", jobs)


def noted(tmp_path: Path, count: int, wait: bool = True) -> list[Noted]:
    return [Noted(tmp_path / f"notes{i}", wait) for i in range(count)]


def test_four_jobs_two_at_once_each_with_a_gpu_of_its_own(here: Backend, jobs: Path, tmp_path: Path) -> None:
    here.check()
    payloads = noted(tmp_path, 4)
    options = Options(at_most=2, python=f"env MARK=here {sys.executable}")
    ids = here.submit(payloads, options)
    array = ids[0].partition("_")[0]
    assert ids == [f"{array}_{i}" for i in range(4)]
    first, second = (p.called() for p in payloads[:2])
    states = backend("slurm", jobs).states(ids)
    assert [states[i].word for i in ids] == ["running", "running", "pending", "pending"]
    assert [states[i].node for i in ids] == [first["SLURMD_NODENAME"], second["SLURMD_NODENAME"], "", ""]
    assert wait_for(lambda: here.states(ids)[ids[3]].reason == "JobArrayTaskLimit")
    assert first["LORABENCH_LOCKS"] != second["LORABENCH_LOCKS"], "two nodes, two sets of locks"
    assert {c[k] for c in (first, second) for k in ("CUDA_VISIBLE_DEVICES", "MARK")} == {"0", "here"}
    assert first["cwd"] == str(ROOT)
    for payload in payloads:
        payload.go()
    for job in ids:
        assert until(here, job, "ended").how == "completed"
        assert "call 1" in here.log(job).read_text()
    assert len({p.called()["pid"] for p in payloads}) == 4


def test_a_single_job_submitted_from_within_another(
    here: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("SRUN_CPUS_PER_TASK", "9")
    (payload,) = noted(tmp_path, 1, wait=False)
    (job,) = here.submit([payload], CPU)
    assert job.isdecimal() and until(here, job, "ended").how == "completed"
    (call,) = payload.calls()
    assert call["SRUN_CPUS_PER_TASK"] is None and "call 1" in here.log(job).read_text()
    assert os.environ["SLURM_JOB_ID"] == "1"


def test_how_jobs_end(here: Backend, tmp_path: Path) -> None:
    payloads = noted(tmp_path, 4)
    payloads[1] = replace(payloads[1], status=3, wait=False)
    cancelled, failed, killed, waiting = here.submit(payloads, replace(CPU, at_most=3))
    os.kill(payloads[2].called()["pid"], signal.SIGKILL)
    payloads[0].called()
    assert until(here, failed, "ended").how == "failed"
    assert until(here, killed, "ended").how == "failed"
    payloads[3].called()
    here.cancel([cancelled, waiting, failed])
    for job in (cancelled, waiting):
        assert until(here, job, "ended").how == "cancelled"
    here.cancel([cancelled])
    states = here.states([failed, cancelled])
    assert (states[failed].how, states[cancelled].how) == ("failed", "cancelled")


def test_a_job_that_nobody_knows_any_more_has_ended(here: Backend, jobs: Path) -> None:
    jobs.mkdir(parents=True)
    (jobs / "9999_0_0_result.pkl").write_bytes(pickle.dumps(("success", None)))
    states = here.states(["9999_0", "9999_1", "77"])
    assert states == {
        "9999_0": JobState("ended", how="completed"), "9999_1": JobState("ended"), "77": JobState("ended")
    }  # fmt: skip
    here.cancel(["9999_0", "9999_1", "77"])


def test_a_dead_nodes_job_begins_again_on_another(slurm: RealSlurm, here: Backend, tmp_path: Path) -> None:
    again, once = noted(tmp_path, 2)
    (first,) = here.submit([again], CPU)
    (second,) = here.submit([once], replace(CPU, sbatch={"no-requeue": True}))
    nodes = [p.called()["SLURMD_NODENAME"] for p in (again, once)]
    for node in nodes:
        slurm.node_down(node)
    assert until(here, second, "ended") == JobState("ended", nodes[1], how="node_fail")
    assert until(here, first, "pending").node == ""
    assert again.called(2)["SLURMD_NODENAME"] not in nodes
    again.go()
    assert until(here, first, "ended").how == "completed"
    printed = here.log(first).read_text()
    assert "call 1" in printed and "call 2" in printed
    assert len(once.calls()) == 1


def test_preempted_and_signalled_jobs_are_queued_again(slurm: RealSlurm, here: Backend, tmp_path: Path) -> None:
    """Killed at once; after some grace, in which submitit's checkpoint queues it; and by the signal alone."""
    payloads = noted(tmp_path, 3)
    ids = []
    for payload, partition, node in zip(payloads, ("normal", "polite", "normal"), ("n1", "n2", "n3"), strict=True):
        options = replace(CPU, partition=partition, sbatch={"nodelist": node})
        ids += here.submit([payload], options)
    for payload in payloads:
        payload.called()
    high = [slurm.sbatch("sleep 1", "--partition=high", "--exclusive", f"--nodelist={node}") for node in ("n1", "n2")]
    slurm.scancel("--signal=USR2", ids[2])
    for job in ids:
        until(here, job, "pending")
    for job in high:
        slurm.wait_state(job, "COMPLETED")
    for payload, job in zip(payloads, ids, strict=True):
        payload.called(2)
        payload.go()
        assert until(here, job, "ended").how == "completed"
        assert "call 2" in here.log(job).read_text()
    assert [p.checkpoints() for p in payloads[1:]] == [1, 1]


@pytest.mark.slow
def test_a_time_limit(here: Backend, tmp_path: Path) -> None:
    deaf, heard, never = noted(tmp_path, 3)
    deaf = replace(deaf, deaf=True)
    options = replace(CPU, minutes=1)
    ids = here.submit([deaf, heard], options)
    ids += here.submit([never], replace(options, retries=0))
    heard.called(2)
    heard.go()
    assert until(here, ids[1], "ended").how == "completed"
    assert heard.checkpoints() >= 1  # Slurm's signal may come a minute early, and so again
    assert until(here, ids[2], "ended").how == "failed"
    assert "timed-out too many times" in here.log(ids[2]).read_text()
    assert until(here, ids[0], "ended").how == "timeout"


def test_the_controller_is_away_for_a_while(slurm: RealSlurm, here: Backend, tmp_path: Path) -> None:
    ending, staying = noted(tmp_path, 2)
    ids = here.submit([ending, staying], CPU)
    nodes = [p.called()["SLURMD_NODENAME"] for p in (ending, staying)]
    slurm.controller_down()
    with pytest.raises(Unreachable, match=r"^Unable to contact slurm controller"):
        here.states(ids)
    with pytest.raises(Unreachable, match="Unable to contact slurm controller"):
        here.submit(noted(tmp_path, 1), CPU)
    ending.go()
    slurm.controller_up()
    assert here.states(ids)[ids[1]] == JobState("running", nodes[1])
    assert until(here, ids[0], "ended").how == "completed"
    slurm.restart_controller()
    assert [here.states(ids)[i].how for i in ids] == ["completed", ""]
    staying.go()
    assert until(here, ids[1], "ended").how == "completed"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (replace(CPU, partition="gqu"), "sbatch says: .*[Ii]nvalid partition.* gqu"),
        (replace(CPU, sbatch={"gres": "tpu:4"}), "sbatch says: .*Invalid generic resource"),
        (replace(CPU, sbatch={"no-such-option": "1"}), "sbatch says: .*no-such-option"),
        (replace(CPU, sbatch={"array": "0-9"}), "--slurm array: the jobs depend on it"),
        (replace(CPU, sbatch={"open-mode": "truncate"}), "--slurm open-mode: the jobs depend on it"),
        (replace(CPU, sbatch={"time": "an hour"}), "--slurm time=an hour: this is no time"),
    ],
)
def test_what_slurm_refuses_it_says_itself(
    here: Backend, jobs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], options: Options, said: str
) -> None:
    for count in (1, 2):
        with pytest.raises(UserError, match=said):
            here.submit(noted(tmp_path, count), options)
    assert not jobs.exists() or not list(jobs.iterdir()), "a submission that was refused leaves nothing"
    assert capfd.readouterr() == ("", ""), "the error is told once"


@pytest.mark.parametrize(
    ("options", "there", "absent"),
    [
        (Options(), ["--gres=gpu:1", "--requeue", "--open-mode=append", "--time=1440"], ["--exclusive", "--mem"]),
        (Options(sbatch={"gpus-per-node": "1"}), ["--gpus-per-node=1", "--cpus-per-task=2"], ["--gres"]),
        (Options(sbatch={"gres": "gpu:1", "cpus-per-gpu": "1"}), ["--cpus-per-gpu=1"], ["--cpus-per-task"]),
        (Options(sbatch={"exclusive": True, "mem": "5G"}), ["--exclusive\n", "--mem=5G"], ["--gres", "--mem=0"]),
        (Options(sbatch={"time": "1-2:30", "requeue": False}), ["--time=1590", "--signal=USR2@120"], ["--requeue"]),
        (CPU, ["--exclusive\n", "--mem=0", "--time=60"], ["--gres", "--partition"]),
        (replace(CPU, partition="high", sbatch={"partition": "polite"}), ["--partition=polite"], ["=high"]),
        (replace(CPU, minutes=4), ["--signal=USR2@60"], []),
    ],
)
def test_options_of_sbatch(
    here: Backend, jobs: Path, tmp_path: Path, options: Options, there: list[str], absent: list[str]
) -> None:
    ids = here.submit(noted(tmp_path, 2), replace(options, sbatch={"hold": True, **options.sbatch}))
    assert {s.reason for s in here.states(ids).values()} == {"JobHeldUser"}
    (script,) = jobs.glob("*_submission.sh")
    text = script.read_text()
    assert all(f"#SBATCH {word}" in text for word in there)
    assert not any(word in text.partition("# setup")[0] for word in absent)
    here.cancel(ids)


def test_what_a_person_has_set_for_all_jobs(
    here: Backend, slurm: RealSlurm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not win over what is asked for here, keeps nothing from a job, and hides none."""
    for name, value in {
        "SBATCH_PARTITION": "high", "SBATCH_TIMELIMIT": "1", "SBATCH_JOB_NAME": "x", "SBATCH_EXPORT": "NONE",
        "SQUEUE_PARTITION": "high", "SQUEUE_STATES": "SUSPENDED",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    (payload,) = noted(tmp_path, 1)
    (job,) = here.submit([payload], replace(CPU, partition="normal"))
    payload.called()
    assert here.states([job])[job].word == "running"
    for name in ("SQUEUE_PARTITION", "SQUEUE_STATES"):
        monkeypatch.delenv(name)
    assert slurm.command("squeue", "-h", "-j", job, "-o", "%P %l %j") == "normal 1:00:00 lorabench"
    payload.go()
    assert until(here, job, "ended").how == "completed"


def test_what_is_missing_to_submit(jobs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sbatch", "srun", "squeue", "scancel"):
        (tmp_path / name).touch(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    backend("slurm", jobs).check()
    with pytest.raises(UserError, match="a % in a path"):
        backend("slurm", jobs / "50%").check()
    (tmp_path / "sbatch").unlink()
    with pytest.raises(UserError, match="there is no sbatch on the PATH"):
        backend("slurm", jobs).check()
    monkeypatch.setattr(sys, "path", [])
    for name in ("slurm", "local"):
        with pytest.raises(UserError, match=rf"--on {name}: submitit is not installed.*pip install .*\[cluster\]"):
            backend(name, jobs).check()  # type: ignore[arg-type]
