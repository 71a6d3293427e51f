"""`python -m bench run --on slurm` over a real Slurm, as people type it, and what happens to its jobs."""

import json
import shlex
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import psutil
import pytest

from tests.cluster.real_slurm import RealSlurm
from tests.conftest import ROOT, Bench, rows_of, wait_for

Key = tuple[str, str, str, int]


@pytest.fixture
def on_slurm(bench: Bench, slurm: RealSlurm) -> Bench:
    """The command line on a login node of the Slurm."""
    bench.env |= slurm.env | {"LORABENCH_POLL": "0.5"}
    del bench.env["LORABENCH_LOCKS"]  # each node has its own
    return bench


def measured(out: Path) -> Counter[Key]:
    """How often each row was measured, over all records of the folder's shards."""
    found = (row for shard in sorted((out / "shards").iterdir()) for row in rows_of(shard))
    return Counter((r["case_id"], r["pass"], r["clock"], r["repeat"]) for r in found)


def once_each(out: Path) -> set[Key]:
    """The rows on record; each was measured once, and none of them failed."""
    found = measured(out)
    assert {r["status"] for r in rows_of(out)} == {"ok"}
    assert set(found.values()) == {1}, "a row was measured twice"
    merged = Counter((r["case_id"], r["pass"], r["clock"], r["repeat"]) for r in rows_of(out))
    assert merged == found, "what was merged is what was measured"
    return set(found)


def jobs_of(out: Path) -> list[str]:
    told = json.loads((out / "cluster.json").read_text())
    return [shard["jobs"][-1] for shard in told["submissions"][-1]["shards"]]


def processes_of(job: str) -> list[psutil.Process]:
    """The process that submitit runs in an array's task."""
    array, _, task = job.partition("_")
    found = []
    for process in psutil.process_iter():
        try:
            env = process.environ()
            if (env.get("SLURM_ARRAY_JOB_ID"), env.get("SLURM_ARRAY_TASK_ID")) == (array, task):
                found += [process] if "submitit.core._submit" in process.cmdline() else []
        except psutil.Error:
            continue
    return found


def test_four_nodes_measure_what_one_process_does(on_slurm: Bench, tmp_path: Path) -> None:
    alone, out = tmp_path / "alone", tmp_path / "out"
    done = on_slurm("run", "smoke", "--gpu", "cpu", "--repeat", 2, "--on", "slurm", "--array", 4, "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(out)
    assert "12 of 12 cases in 4 shards" in done.stderr and "shards: 4 done" in done.stderr
    on_slurm.env["LORABENCH_LOCKS"] = str(tmp_path)
    assert on_slurm("run", "smoke", "--gpu", "cpu", "--out", alone).returncode == 0
    assert once_each(out) == {
        (r["case_id"], r["pass"], r["clock"], repeat) for r in rows_of(alone) for repeat in (0, 1)
    }
    assert on_slurm.plots(out).returncode == 0 and (out / "report.html").exists()
    again = on_slurm("run", "smoke", "--gpu", "cpu", "--repeat", 2, "--on", "slurm", "--array", 4, "--out", out)
    assert again.returncode == 0 and "all 12 cases are measured" in again.stderr
    assert len(list((out / "shards").iterdir())) == 4, "nothing was submitted"
    mixed = on_slurm("run", "smoke", "--gpu", "cpu", "--repeat", 3, "--out", out)
    assert mixed.returncode == 2 and "Add --on" in mixed.stderr
    other = on_slurm("run", "smoke", "--gpu", "cpu", "--on", "slurm", "--out", alone)
    assert other.returncode == 2 and "of a run without --on" in other.stderr


def test_a_task_of_each_kind_is_cut_off_and_nothing_is_lost_or_doubled(
    on_slurm: Bench, slurm: RealSlurm, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("run", "smoke", "--gpu", "cpu", "--repeat", 2, "--on", "slurm", "--array", 4, "--out", out)
    # Preemption: with a signal to all processes of the job, workers too, and some grace.
    run = on_slurm.start(*command, "--slurm", "mem=1000", "--partition", "polite")
    try:
        wait_for(lambda: len(list((out / "shards").glob("*/run.json"))) == 4, 120)
        cancelled, killed, preempted, lost = jobs_of(out)
        nodes = dict(line.split() for line in slurm.command("squeue", "-h", "-r", "-o", "%i %N").splitlines())
        slurm.scancel(cancelled)
        wait_for(lambda: processes_of(killed))[0].send_signal(signal.SIGKILL)
        slurm.node_down(nodes[lost])
        high = slurm.sbatch("sleep 5", "--partition=high", "--exclusive", f"--nodelist={nodes[preempted]}")
        slurm.wait_state(high, "RUNNING", "COMPLETED")
        slurm.node_up(nodes[lost])
        _, errors = run.communicate(timeout=400)
    finally:
        run.kill()
    assert run.returncode == 1, errors
    assert "Calling checkpoint" in (out / "jobs" / f"{preempted}_0_log.out").read_text()
    assert "shard 0: its job was cancelled" in errors
    assert "shard 1: failed; submitted again as job" in errors
    assert len(list((out / "shards").glob("002*"))) == 2 and len(list((out / "shards").glob("003*"))) == 2
    assert len(once_each(out)) == 3 * 18, "all but those of the cancelled shard"
    done = on_slurm(*command)
    assert done.returncode == 0, done.stderr
    assert len(once_each(out)) == 4 * 18
    assert {r["status"] for r in rows_of(out)} == {"ok"}


def test_detached_attached_refused_and_cancelled(
    on_slurm: Bench, slurm: RealSlurm, quick: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = ("run", quick, "--gpu", "cpu", "--repeat", 8, "--on", "slurm", "--array", "16%2", "--out", out)
    run = on_slurm.start(*command)
    try:
        wait_for(lambda: len(list((out / "shards").glob("*/run.json"))) == 2, 120)
        second = on_slurm(*command)
        assert second.returncode == 2 and "attends to this folder" in second.stderr
        assert sum(state == "RUNNING" for state in slurm.squeue().values()) == 2, "at most two at once"
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 130 and f"python -m bench status {out}" in errors
    second = on_slurm(*command)
    assert second.returncode == 2 and "measure into it" in second.stderr and "status" in second.stderr
    slurm.restart_controller()
    once = on_slurm("status", out, "--once")
    assert once.returncode == 0 and "0/1" in once.stdout and "of 16 cases" in once.stdout
    status = on_slurm.start("status", out)
    try:
        wait_for(lambda: len(list((out / "shards").glob("*/end.json"))) >= 2, 120)
        slurm.controller_down()
        wait_for(lambda: any("does" in line or "ontact" in line for line in iter(status.stderr.readline, "")), 60)
        slurm.controller_up()
    finally:
        status.send_signal(signal.SIGINT)
        status.communicate(timeout=60)
    cancel = on_slurm("status", out, "--cancel")
    assert cancel.returncode == 1, cancel.stderr
    assert "cancelled: " in cancel.stderr and "cancelled; 1 of 1 cases are open" in cancel.stderr, cancel.stderr
    assert "file system" not in cancel.stderr, "those that had not begun were cancelled too"
    assert not slurm.command("squeue", "-h")
    assert len(once_each(out)) >= 2 * 2
    assert not (out / ".attended").exists()


def test_what_a_person_gets_wrong(on_slurm: Bench, tmp_path: Path) -> None:
    def told(*options: object) -> str:
        done = on_slurm("run", "smoke", "--on", "slurm", "--out", tmp_path / "out", *options)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    assert "invalid partition" in told("--gpu", "cpu", "--partition", "nowhere")
    assert not (tmp_path / "out" / "cluster.json").exists()
    assert "--gpu auto" in told()
    assert "invalid node name" in told("--gpu", "cpu", "--slurm", "nodelist=n9").lower()


def test_a_node_without_the_gpu_that_was_asked_for(on_slurm: Bench, tmp_path: Path) -> None:
    done = on_slurm("run", "smoke", "--gpu", "a100", "--on", "slurm", "--array", 1, "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "shard 0: --gpu a100: not on this machine" in done.stderr and "only the CPU" in done.stderr


WITHOUT_TORCH = """
import sys
for name in ("torch", "triton", "transformers", "peft"):
    sys.modules[name] = None
from bench.cli import main
main(sys.argv[1:])
"""


def test_a_login_node_without_torch(on_slurm: Bench, quick: Path, tmp_path: Path) -> None:
    on_slurm.command = lambda *words: [sys.executable, "-c", WITHOUT_TORCH, *map(str, words)]  # type: ignore[method-assign]
    out = tmp_path / "out"
    done = on_slurm("run", quick, "--gpu", "cpu", "--on", "slurm", "--array", 2, "--out", out)
    assert done.returncode == 0, done.stderr
    assert len(once_each(out)) == 2 * 2
    assert on_slurm("status", out).returncode == 0
    merged = on_slurm("merge", out, "--out", tmp_path / "merged")
    assert merged.returncode == 0 and len(rows_of(tmp_path / "merged")) == 2 * 2, merged.stderr


def test_a_folder_that_the_nodes_do_not_see(on_slurm: Bench, tmp_path: Path) -> None:
    out = tmp_path / "private" / "out"
    out.parent.mkdir()
    script = f"mount -t tmpfs none {out.parent} && exec " + shlex.join(
        on_slurm.command("run", "smoke", "--gpu", "cpu", "--on", "slurm", "--array", 2, "--out", out)
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        cwd=ROOT,
        env=on_slurm.env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"cannot give a process a file system of its own here: {done.stderr.strip()}")
    assert done.returncode == 1
    assert "the nodes do not share that file system" in done.stderr, done.stderr


def test_the_time_limit_of_a_job_ends_no_shard(on_slurm: Bench, slurm: RealSlurm, quick: Path, tmp_path: Path) -> None:
    """As Slurm does it when the time is over: SIGUSR2 to the task, which has itself queued again."""
    out = tmp_path / "out"
    run = on_slurm.start("run", quick, "--gpu", "cpu", "--repeat", 4, "--on", "slurm", "--array", 1, "--out", out)
    try:
        wait_for((out / "shards" / "000" / "rows.jsonl").exists, 120)
        slurm.command("scancel", "--signal=USR2", jobs_of(out)[0])
        _, errors = run.communicate(timeout=200)
    finally:
        run.kill()
    assert run.returncode == 0, errors
    assert "submitted again" not in errors, "it has queued itself again"
    first, second = sorted(path.name for path in (out / "shards").iterdir())
    assert (first, second) == ("000", "000.2")
    assert rows_of(out / "shards" / "000") and rows_of(out / "shards" / "000.2")
    assert len(once_each(out)) == 8 * 2
