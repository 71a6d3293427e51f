"""What `run --on` and `status` refuse before anything is submitted."""

import os
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


QUEUE = """#!/bin/sh
echo '7|PENDING||Priority'
"""


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Slurm that knows job 7, which waits."""
    for name in ("sbatch", "srun", "squeue", "scancel"):
        (tmp_path / "bin" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "bin" / name).write_text(QUEUE)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.parametrize("status, refused", [(143, True), (1, True), (2, False), (0, False)])
def test_a_job_that_is_queued_again_still_measures(
    cli: Cli, queue: None, tmp_path: Path, status: int, refused: bool
) -> None:
    """Preempted, it has left an end; the queue has it all the same."""
    layout, submission = submitted(tmp_path / "out")
    for shard in submission.shards:
        shard.jobs = ["7"]
        layout.write_end(layout.claim(shard.number), status)
    write_submissions(layout.folder, [submission])
    done = cli("run", tmp_path / "out" / "mine.yaml", "--gpu", "a100", "--on", "slurm", "--out", layout.folder)
    assert done.returncode == 2, "the fake sbatch submits nothing"
    assert ("measure into it: 7." in done.stderr) == refused, done.stderr


def test_somebody_elses_folder_is_only_looked_at(
    cli: Cli, queue: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, submission = submitted(tmp_path / "out")
    for shard in submission.shards:
        shard.left = "failed, 3 times in a row"
    write_submissions(layout.folder, [submission])
    mine = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    done = cli("status", layout.folder)
    assert "ann has submitted it" in done.stderr and "only looks on" in done.stderr
    assert not (layout.folder / "run.json").exists()


@pytest.mark.parametrize("left", ["", '{"case_id": "abc'])
def test_jobs_that_were_cut_off_before_their_first_row(cli: Cli, queue: None, tmp_path: Path, left: str) -> None:
    """Such a file is no record, and in nobody's way."""
    layout, submission = submitted(tmp_path / "out")
    for shard in submission.shards:
        (layout.claim(shard.number) / "rows.jsonl").write_text(left)
        shard.left = "its job was cancelled"
    write_submissions(layout.folder, [submission])
    done = cli("status", layout.folder)
    assert done.returncode == 1 and "0 of 6 cases" in done.stderr, done.stderr
    done = cli("run", tmp_path / "out" / "mine.yaml", "--gpu", "a100", "--on", "slurm", "--out", layout.folder)
    assert "6 of 6 cases in 2 shards" in done.stderr or "sbatch" in done.stderr, done.stderr


def test_a_record_that_names_a_place_elsewhere_is_not_moved_there(cli: Cli, queue: None, tmp_path: Path) -> None:
    layout, submission = submitted(tmp_path / "out")
    for shard in submission.shards:
        shard.left = "failed, 3 times in a row"
    write_submissions(layout.folder, [submission])
    (layout.folder / "run.json").write_text('{"schema": 1, "run_id": "../../elsewhere", "invocations": []}')
    done = cli("run", layout.folder / "mine.yaml", "--gpu", "a100", "--on", "slurm", "--fresh", "--out", layout.folder)
    assert done.returncode == 2 and "run_id is '../../elsewhere'" in done.stderr, done.stderr
    assert not (tmp_path / "elsewhere").exists() and (layout.folder / "cluster.json").exists()
