"""A hundred shards of a thousand rows in one record: time and memory, under pytest-benchmark.

`python -m pytest tests/record/test_merge_scale.py -s` prints both.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.record.read import read_run
from tests.conftest import ROOT
from tests.record.shards import shard


def test_a_hundred_shards_of_a_thousand_rows(benchmark: Any, tmp_path: Path) -> None:
    shards = [shard(tmp_path / f"{i:03d}", i) for i in range(100)]
    out, peaks = tmp_path / "out", list[float]()

    def merge() -> None:
        command = [sys.executable, "-m", "bench", "merge", *map(str, shards), "--out", str(out)]
        run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        _, status, used = os.wait4(run.pid, 0)
        run.returncode = os.waitstatus_to_exitcode(status)
        assert run.returncode == 0
        peaks.append(used.ru_maxrss / 1024)

    benchmark.pedantic(merge, rounds=1)
    benchmark.extra_info["peak_mib"] = max(peaks)
    if benchmark.stats is not None:  # None under --benchmark-disable
        print(f"\n100,000 rows and samples merged in {benchmark.stats.stats.max:.1f} s, {max(peaks):.0f} MiB at most")
    for name in ("rows.jsonl", "samples.jsonl"):
        with open(out / name, "rb") as file:
            assert sum(1 for _ in file) == 100_000
    with open(out / "rows.csv", "rb") as file:
        assert sum(1 for _ in file) == 100_001
    assert len(read_run(out)["merged"]) == 100
