"""What `run --on` and `status` refuse before anything is submitted."""

from pathlib import Path

import pytest

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
