"""What becomes of memory that a process without a GPU has freed, as the kernel counts page faults and pages."""

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from bench.devices import cpu_device
from bench.record.environment import ROOT
from bench.runner.lane import Lane, job_for
from bench.runner.worker_process import Worker
from bench.sweeps.expand import make_plan

PROGRAM = """
import resource, sys
from bench.timing import heap

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        b"1" * (64 << 20)  # more than glibc ever keeps by itself
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1])

print(faults())
assert heap.keep_freed()
faults()
print(faults(), resident())
heap.give_back()
print(resident())
"""

SWEEP = """
description: a layer whose dW are 64 MiB
axes: {level: linear, layer: square-4096, batch: 1, seq: 4, precision: fp32}
methods: [{method: full}]
"""

HUGE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
on_glibc = pytest.mark.skipif(
    not any(Path("/").glob("lib*/ld-linux*")) or (HUGE.exists() and "[always]" in HUGE.read_text()),
    reason="glibc alone has mallopt, and where all pages are huge there are few faults to count",
)


@on_glibc
def test_what_is_kept_is_not_mapped_anew_until_it_is_given_back() -> None:
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, cwd=ROOT, timeout=60
    ).stdout.split()
    before, after, held, left = map(int, found)
    assert before > 60_000, "four times 16,384 pages of 4 KiB"
    assert after < before / 100
    assert held - left > 15_000


@on_glibc
def test_samples_of_a_worker_pay_for_no_new_pages(tmp_path: Path) -> None:
    sweep = tmp_path / "large.yaml"
    sweep.write_text(SWEEP)
    plan = make_plan(str(sweep), on_cpu=True)
    settings = plan.settings.model_copy(update={"warmup_calls": 2, "warmup_s": 1e-3})
    with Worker(tmp_path / "a.log", 60) as worker:
        lane = Lane(worker)
        lane.greet(job_for(cpu_device(), settings, 1, plan.passes))
        lane.ask("prepare", "prepared", case=asdict(plan.cases[0]))
        lane.ask("begin", "begun", clock="cpu-time")
        lane.ask("block", "block", number=0, seconds=0.01)
        before, samples = _faults(worker.pid), 0
        for number in range(1, 4):
            samples += len(lane.ask("block", "block", number=number, seconds=0.01)["samples"][0][2])
        assert _faults(worker.pid) - before < 500 * samples, "each had 16,384 for dW"


def _faults(pid: int) -> int:
    """Minor page faults of a process so far: field 10 of proc_pid_stat(5)."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7])
