"""Faults from outside, on real processes: kills, hangs, out of memory, a full disk, Ctrl-C, two runs at once."""

import os
import resource
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import SWEEP, Bench, children_of, is_running, rows_of, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="uses /proc and signals as Linux has them")

ROWS = 2 * 3  # of a case: clocks cpu-time and cpu, three passes
CASES = 4  # of two comparisons

TWO_GROUPS = SWEEP.replace("  - {method: lora, rank: 4, alpha: 8}\n", "")


@pytest.fixture
def sweep_file(tmp_path: Path) -> Path:
    """A sweep of four cases in two comparisons, by two workers."""
    path = tmp_path / "small.yaml"
    path.write_text(TWO_GROUPS)
    return path


def by_case(rows: list[dict[str, Any]]) -> Counter[str]:
    return Counter(r["case_id"] for r in rows)


def test_kill_of_the_scheduler_takes_the_worker_along_and_loses_nothing(
    bench: Bench, sweep_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    scheduler = bench.start("run", sweep_file, "--out", out)
    wait_for(lambda: len(rows_of(out)) >= ROWS)
    worker = wait_for(lambda: children_of(scheduler.pid))[0]
    scheduler.kill()
    scheduler.wait()
    wait_for(lambda: not is_running(worker), seconds=10)
    before = rows_of(out)

    done = bench("run", sweep_file, "--out", out)
    assert done.returncode == 0, done.stderr
    after = rows_of(out)
    assert after[: len(before)] == before, "what was measured stays as it was"
    assert len(by_case(after)) == CASES
    assert set(by_case(after).values()) == {ROWS}, "no case is lost, none measured twice"


@pytest.mark.slow
def test_a_stopped_worker_dies_with_its_scheduler_too(bench: Bench, sweep_file: Path, tmp_path: Path) -> None:
    scheduler = bench.start("run", sweep_file, "--out", tmp_path / "out")
    worker = wait_for(lambda: children_of(scheduler.pid))[0]
    wait_for(lambda: rows_of(tmp_path / "out"))
    os.kill(worker, signal.SIGSTOP)
    scheduler.kill()
    scheduler.wait()
    wait_for(lambda: not is_running(worker), seconds=10)


@pytest.mark.slow
def test_kill_of_the_worker_is_a_crashed_row_and_the_sweep_goes_on(
    bench: Bench, sweep_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    scheduler = bench.start("run", sweep_file, "--out", out)
    worker = wait_for(lambda: children_of(scheduler.pid))[0]
    os.kill(worker, signal.SIGKILL)
    _, stderr = scheduler.communicate(timeout=120)
    assert scheduler.returncode == 1
    rows = rows_of(out)
    crashed = {r["case_id"] for r in rows if r["status"] == "crashed"}
    assert len(crashed) == 1
    assert "SIGKILL" in next(r["detail"] for r in rows if r["status"] == "crashed")
    assert all(r["median_ms"] is None for r in rows if r["status"] == "crashed")
    assert sum(r["status"] == "ok" for r in rows) == (CASES - 1) * ROWS
    assert "--retry crashed" in stderr

    assert bench("run", sweep_file, "--out", out).returncode == 1, "and so at every rerun until it is retried"
    assert len(rows_of(out)) == CASES * ROWS, "a rerun measures nothing again"
    retried = bench("run", sweep_file, "--out", out, "--retry", "crashed")
    assert retried.returncode == 0, retried.stderr
    assert len(rows_of(out)) == (CASES + 1) * ROWS
    csv = (out / "rows.csv").read_text().splitlines()
    assert len(csv) == 1 + CASES * ROWS
    assert not any("crashed" in line for line in csv)


DIES_IN_A_ROUND = """
import os, pathlib, sys
if 'bench.runner.worker' in sys.orig_argv:
    from bench.timing.sampler import Sampler
    whole, flag = Sampler.block, pathlib.Path({flag!r})
    def block(self, number, seconds):
        if number == 3 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), 9)
        return whole(self, number, seconds)
    Sampler.block = block
"""


@pytest.mark.slow
def test_a_worker_killed_in_a_round_costs_nothing(bench: Bench, tmp_path: Path) -> None:
    """The first to come to its fourth block is killed: its case is measured alone, and the others go on."""
    planted = tmp_path / "planted"
    planted.mkdir()
    (planted / "sitecustomize.py").write_text(DIES_IN_A_ROUND.format(flag=str(tmp_path / "flag")))
    bench.env["PYTHONPATH"] = os.pathsep.join([str(planted), bench.env["PYTHONPATH"]])
    sweep = tmp_path / "small.yaml"
    sweep.write_text(SWEEP)
    out = tmp_path / "out"
    done = bench("run", sweep, "--out", out, "--where", "layer=square-48")
    assert done.returncode == 0, done.stderr
    rows = rows_of(out)
    assert {r["status"] for r in rows} == {"ok"} and set(by_case(rows).values()) == {ROWS}
    beside = Counter(r["beside"] for r in rows)
    assert beside == {"nothing": ROWS, "comparison": 2 * ROWS}
    assert all(r["rounds"] >= 6 for r in rows if r["beside"] == "comparison"), "more than those before the kill"
    assert len({r["process"] for r in rows}) == 3 and (tmp_path / "flag").exists()


@pytest.mark.slow
def test_a_hung_worker_is_a_timeout_row_and_is_gone(bench: Bench, tmp_path: Path) -> None:
    sweep = tmp_path / "hang.yaml"
    sweep.write_text(TWO_GROUPS.replace("measure: {", "measure: {timeout_s: 15, "))
    out = tmp_path / "out"
    scheduler = bench.start("run", sweep, "--out", out)
    worker = wait_for(lambda: children_of(scheduler.pid))[0]
    os.kill(worker, signal.SIGSTOP)
    scheduler.communicate(timeout=180)
    assert scheduler.returncode == 1
    assert not is_running(worker)
    status = Counter(r["status"] for r in rows_of(out))
    assert status == {"timeout": ROWS, "ok": (CASES - 1) * ROWS}


def test_out_of_memory_is_a_row_and_the_next_case_has_a_clean_process(bench: Bench, tmp_path: Path) -> None:
    sweep = tmp_path / "big.yaml"
    sweep.write_text(SWEEP.replace("[square-48, square-64]", "[square-48, square-40000000, square-64]"))
    out = tmp_path / "out"
    done = bench("run", sweep, "--out", out, "--where", "method=full")
    assert done.returncode == 1, done.stderr
    small, big, after = (rows_of(out)[i * ROWS] for i in range(3))
    assert [small["status"], big["status"], after["status"]] == ["ok", "oom", "ok"]
    assert big["median_ms"] is None and "alloc" in big["detail"].lower()
    assert small["process"] == big["process"] != after["process"]


@pytest.mark.slow
def test_a_full_disk_is_a_clear_error_and_the_record_stays_readable(
    bench: Bench, sweep_file: Path, tmp_path: Path
) -> None:
    """The limit on file size, set on the running process, fails a write half-way as a full disk does."""
    out = tmp_path / "out"
    scheduler = bench.start("run", sweep_file, "--out", out)
    wait_for(lambda: len(rows_of(out)) >= ROWS)
    limit = (out / "rows.jsonl").stat().st_size + 700  # less than the rows of one case
    resource.prlimit(scheduler.pid, resource.RLIMIT_FSIZE, (limit, limit))
    _, stderr = scheduler.communicate(timeout=120)
    assert scheduler.returncode == 1
    assert "jsonl" in stderr and "what was written before is whole" in stderr
    assert "Traceback" not in stderr
    before = rows_of(out)
    assert before and set(by_case(before).values()) == {ROWS}

    assert bench("run", sweep_file, "--out", out).returncode == 0
    assert rows_of(out)[: len(before)] == before
    assert set(by_case(rows_of(out)).values()) == {ROWS}


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Any:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", folder]).returncode:
        pytest.skip("needs the right to mount")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_disk_without_room_at_all(bench: Bench, sweep_file: Path, tiny_disk: Path) -> None:
    out = tiny_disk / "out"
    (tiny_disk / "ballast").write_bytes(b"x" * 44 * 1024)
    done = bench("run", sweep_file, "--out", out)
    assert done.returncode == 1
    assert "No space left" in done.stderr and "Traceback" not in done.stderr
    rows = rows_of(out)
    assert all(r["status"] == "ok" for r in rows), "what is there is readable"

    (tiny_disk / "ballast").unlink()
    again = bench("run", sweep_file, "--out", out)
    assert again.returncode in (0, 1)
    assert rows_of(out)[: len(rows)] == rows


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_an_interrupt_keeps_what_is_finished_and_says_how_to_go_on(
    bench: Bench, sweep_file: Path, tmp_path: Path, number: int, status: int
) -> None:
    out = tmp_path / "out"
    scheduler = bench.start("run", sweep_file, "--out", out)
    wait_for(lambda: rows_of(out))
    worker = wait_for(lambda: children_of(scheduler.pid))[0]
    scheduler.send_signal(number)
    _, stderr = scheduler.communicate(timeout=30)
    assert scheduler.returncode == status
    assert f"To go on: python -m bench run {sweep_file} --out {out}" in stderr
    assert "Traceback" not in stderr
    assert not is_running(worker)
    assert len((out / "rows.csv").read_text().splitlines()) == 1 + len(rows_of(out))


@pytest.mark.slow
def test_a_second_run_on_the_same_device_waits_and_says_so(bench: Bench, sweep_file: Path, tmp_path: Path) -> None:
    first = bench.start("run", sweep_file, "--out", tmp_path / "first")
    wait_for(lambda: children_of(first.pid))
    second = bench("run", sweep_file, "--out", tmp_path / "second")
    first.communicate(timeout=60)
    assert first.returncode == second.returncode == 0
    assert f"process {first.pid}" in second.stderr and "waiting" in second.stderr
    ends = max(r["measured_at"] for r in rows_of(tmp_path / "first"))
    assert min(r["measured_at"] for r in rows_of(tmp_path / "second")) > ends


def test_a_worker_that_cannot_start_fails_its_group_at_once(bench: Bench, sweep_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "torch.py").write_text("raise ImportError('this torch is broken')")
    bench.env["PYTHONPATH"] = os.pathsep.join([str(broken), bench.env["PYTHONPATH"]])
    done = bench("run", sweep_file, "--out", tmp_path / "out", "--where", "method=full")
    assert done.returncode == 1
    rows = rows_of(tmp_path / "out")
    assert {r["status"] for r in rows} == {"error"}
    assert "this torch is broken" in rows[0]["detail"]


@pytest.mark.slow
def test_a_wrong_result_shows_no_number_and_the_sweep_goes_on(bench: Bench, tmp_path: Path) -> None:
    """A fault planted in the workers' copy of impl eager: the branch of LoRA is doubled."""
    planted = tmp_path / "planted"
    planted.mkdir()
    (planted / "sitecustomize.py").write_text(
        "import sys\n"
        "if 'bench.runner.worker' in sys.orig_argv:\n"
        "    from bench.methods.lora.eager import EagerLoRALinear as L\n"
        "    right = L.forward\n"
        "    L.forward = lambda self, x: 2 * right(self, x) - self.base(x)\n"
    )
    bench.env["PYTHONPATH"] = os.pathsep.join([str(planted), bench.env["PYTHONPATH"]])
    sweep = tmp_path / "small.yaml"
    sweep.write_text(SWEEP)
    done = bench("run", sweep, "--out", tmp_path / "out", "--where", "method=full,lora", "--where", "layer=square-48")
    assert done.returncode == 1, done.stderr
    status = {(r["method"], r["status"]) for r in rows_of(tmp_path / "out")}
    assert status == {("full", "ok"), ("lora", "wrong")}
    wrong = next(r for r in rows_of(tmp_path / "out") if r["method"] == "lora")
    assert wrong["median_ms"] is None and wrong["n"] is None
    assert "differs from the reference" in wrong["detail"]
    assert wrong["case_id"] not in (tmp_path / "out" / "samples.jsonl").read_text()
