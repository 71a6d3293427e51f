"""A hundred shards of a thousand rows in one record: time and memory, under pytest-benchmark.

`python -m pytest tests/record/test_merge_scale.py -s` prints both.
"""

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from bench.record.read import read_run
from tests.conftest import ROOT
from tests.record.shards import shard


def together(pid: int) -> float:
    """MiB of a process and its forks; what they share counts once."""
    found = 0
    with suppress(psutil.Error):
        one = psutil.Process(pid)
        for process in (one, *one.children()):
            with suppress(psutil.Error):
                found += process.memory_full_info().pss
    return found / 2**20


def test_a_hundred_shards_of_a_thousand_rows(benchmark: Any, tmp_path: Path) -> None:
    shards = [shard(tmp_path / f"{i:03d}", i) for i in range(100)]
    out, peaks = tmp_path / "out", list[float]()

    def merge() -> None:
        command = [sys.executable, "-m", "bench", "merge", *map(str, shards), "--out", str(out)]
        run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        while run.poll() is None:
            peaks.append(together(run.pid))
            time.sleep(0.1)
        assert run.returncode == 0

    benchmark.pedantic(merge, rounds=1)
    benchmark.extra_info["peak_mib"] = max(peaks)
    if benchmark.stats is not None:  # None under --benchmark-disable
        print(f"\n100,000 rows and samples merged in {benchmark.stats.stats.max:.1f} s, {max(peaks):.0f} MiB in all")
    for name in ("rows.jsonl", "samples.jsonl"):
        with open(out / name, "rb") as file:
            assert sum(1 for _ in file) == 100_000
    with open(out / "rows.csv", "rb") as file:
        assert sum(1 for _ in file) == 100_001
    assert len(read_run(out)["merged"]) == 100
