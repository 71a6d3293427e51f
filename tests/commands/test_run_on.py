"""What `run --on` and `status` refuse before anything is submitted."""

from pathlib import Path

import pytest

from bench.cluster.submissions import write_submissions
from tests.cluster.made import submitted
from tests.conftest import Cli


@pytest.mark.parametrize(
    "options, words",
    [
        (["--on", "kubernetes"], ["--on", "kubernetes", "slurm, local"]),
        (["--array", "4"], ["--array", "goes with --on slurm"]),
        (["--python", "python3"], ["--python", "goes with --on"]),
        (["--on", "local", "--partition", "gpu"], ["--partition", "--on local has one shard for each GPU"]),
        (["--on", "slurm", "--array", "0"], ["--array '0'", "64%8"]),
        (["--on", "slurm", "--array", "4%0"], ["--array", "64%8"]),
        (["--on", "slurm", "--array", "0-15"], ["--array '0-15'", "64%8"]),
        (["--on", "slurm", "--array", "2000"], ["--array", "1 to 1000"]),
        (["--on", "slurm", "--slurm", "account="], ["--slurm", "account=physics"]),
        (["--on", "slurm", "--slurm", "a=b\nscancel -u me"], ["--slurm", "account=physics"]),
        (["--on", "slurm", "--slurm", "output=/tmp/x"], ["--slurm", "output is set here"]),
        (["--on", "slurm", "--slurm", "partition=a", "--partition", "b"], ["--partition", "a second time"]),
    ],
)
def test_flags(cli: Cli, tmp_path: Path, options: list[str], words: list[str]) -> None:
    done = cli("run", "smoke", "--gpu", "cpu", "--out", tmp_path / "out", *options)
    assert done.returncode == 2
    assert all(word in done.stderr for word in words), done.stderr
    assert not (tmp_path / "out").exists()


def test_without_slurm(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = cli("run", "smoke", "--gpu", "cpu", "--on", "slurm", "--out", tmp_path / "out")
    assert done.returncode == 2 and "no sbatch on the PATH" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_gpu_of_a_job_is_named(cli: Cli, tmp_path: Path) -> None:
    done = cli("run", "smoke", "--on", "slurm", "--out", tmp_path / "out")
    assert done.returncode == 2 and "--gpu auto" in done.stderr and "--gpu a100" in done.stderr
    done = cli("run", "smoke", "--gpu", "a101", "--on", "slurm", "--out", tmp_path / "out")
    assert done.returncode == 2 and "a100" in done.stderr


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Slurm on the PATH whose squeue prints this file, and which refuses every job."""
    told, commands = tmp_path / "squeue.txt", tmp_path / "bin"
    commands.mkdir()
    for name in ("sbatch", "srun", "scancel", "scontrol", "squeue"):
        does = f"exec /bin/cat {told}" if name == "squeue" else "echo refused >&2; exit 1"
        (commands / name).write_text(f"#!/bin/sh\n{does}\n")
        (commands / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(commands))
    return told


@pytest.mark.parametrize("status", [1, 143])
def test_a_job_that_begins_again_is_waited_for(cli: Cli, tmp_path: Path, queue: Path, status: int) -> None:
    """Else two jobs would measure the same: an attempt that was interrupted may be queued again, as is one that failed."""
    layout, submission = submitted(tmp_path / "out", gpu="cpu")
    for shard in submission.shards:
        shard.jobs[:] = [f"7_{shard.number}"]
        layout.write_end(layout.claim(shard.number), status)
    write_submissions(layout.folder, [submission])
    queue.write_text("7_0|PENDING||BeginTime\n7_1|COMPLETED|n1|None\n")
    run = ("run", tmp_path / "out" / "mine.yaml", "--gpu", "cpu", "--on", "slurm", "--out", layout.folder)
    done = cli(*run)
    assert done.returncode == 2 and "jobs of ann measure into it: 7_0." in done.stderr, done.stderr
    queue.write_text("")
    done = cli(*run)
    assert "sbatch refused: refused" in done.stderr, done.stderr
