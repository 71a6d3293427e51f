"""`python -m bench run --on local`: one worker for each GPU of this machine, which outlive the terminal."""

import contextlib
import signal
from pathlib import Path

import psutil
import pytest

from bench.record.read import read_run
from tests.conftest import ROOT, Bench, rows_of, wait_for

TWO_GPUS = """
from tests.fake_nvml import FakeNvml

found = FakeNvml(*(("NVIDIA A100-SXM4-40GB", (8, 0), 108 * 64, uuid) for uuid in ("GPU-aaa", "GPU-bbb")))

def __getattr__(name):
    return getattr(found, name)
"""


@pytest.fixture
def on_local(bench: Bench) -> Bench:
    bench.env |= {"LORABENCH_POLL": "0.2"}
    return bench


@pytest.mark.slow
def test_each_gpu_has_a_shard_of_its_own(on_local: Bench, quick: Path, tmp_path: Path) -> None:
    """The GPUs are none, so that every worker ends when it makes its CUDA context; which GPU that was for is told."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "pynvml.py").write_text(TWO_GPUS)
    on_local.env["PYTHONPATH"] = f"{tmp_path / 'fake'}:{ROOT}"
    out = tmp_path / "out"
    done = on_local("run", quick, "--on", "local", "--gpu", "a100", "--out", out)
    assert done.returncode == 1 and "2 of 2 cases in 2 shards" in done.stderr, done.stderr
    records = [out / "shards" / name for name in ("000", "001")]
    assert [read_run(r)["gpu_uuid"] for r in records] == ["GPU-aaa", "GPU-bbb"]
    rows = [rows_of(r) for r in records]
    assert [{r["seq"] for r in part} for part in rows] == [{4}, {8}]
    assert all(r["gpu"] == "NVIDIA A100-SXM4-40GB" and r["run_id"] == read_run(record)["run_id"]
               for record, part in zip(records, rows, strict=True) for r in part)  # fmt: skip
    assert len(rows_of(out)) == len(rows[0]) + len(rows[1])
    assert f"To measure what failed again: python -m bench run {quick} --on local" in done.stderr


def is_of(process: psutil.Process, out: Path) -> bool:
    """Whether it measures a shard of the folder."""
    with contextlib.suppress(psutil.Error):
        words = process.cmdline()
        return "submitit.core._submit" in words and words[-1].startswith(str(out))
    return False


@pytest.mark.slow
def test_it_goes_on_without_its_terminal_and_after_a_kill(on_local: Bench, quick: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ("run", quick, "--on", "local", "--gpu", "cpu", "--repeat", 4, "--out", out)
    run = on_local.start(*command)
    try:
        wait_for((out / "shards" / "000" / "run.json").exists)
        run.send_signal(signal.SIGINT)
        _, errors = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 130 and "1 shard goes on" in errors
    assert on_local(*command).returncode == 2, "its job is still at it"
    once = on_local("status", out, "--once")
    assert once.returncode == 0 and "running" in once.stdout
    status = on_local.start("status", out)
    try:
        assert status.stderr and "running" in status.stderr.readline()
        worker = next(p for p in psutil.process_iter() if is_of(p, out))
        worker.kill()
        told, errors = status.communicate(timeout=200)
    finally:
        status.kill()
    assert status.returncode == 0, errors
    assert "shard 0: failed; submitted again as job" in errors and told.strip() == str(out)
    assert [p.name for p in sorted((out / "shards").iterdir())] == ["000", "000.2"]
    keys = [(r["case_id"], r["pass"], r["clock"], r["repeat"]) for r in rows_of(out)]
    assert len(keys) == len(set(keys)) == 8 * 2


def test_status_of_what_was_never_submitted(on_local: Bench, tmp_path: Path) -> None:
    for folder, word in ((tmp_path / "nothing", "no such folder"), (tmp_path, "cluster.json")):
        done = on_local("status", folder)
        assert done.returncode == 2 and word in done.stderr and "--on slurm" in done.stderr
