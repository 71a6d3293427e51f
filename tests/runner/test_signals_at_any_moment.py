"""A sweep that is hit by signals again and again comes to the same rows as one that is left alone."""

import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Bench, children_of, rows_of, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(sys.platform != "linux", reason="uses /proc and signals as Linux has them"),
]

TINY = """
description: two comparisons of two methods
axes: {level: linear, layer: square-16, batch: 1, seq: [4, 8], precision: fp32}
methods: [{method: full}, {method: paca, rank: 4, alpha: 8}]
passes: [forward]
measure: {min_samples: 4, min_rounds: 2, max_rounds: 12, budget_s: 0.05, wall_s: 0.5, warmup_s: 0.001,
  warmup_max_s: 0.01, min_time_s: 0.001, block_s: 0.005}
"""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGKILL)
MOMENTS = 60


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return (row["case_id"], row["pass"], row["clock"], row["repeat"])


def heeds_signals(pid: int) -> bool:
    """Whether a process has come so far that it handles SIGTERM."""
    caught = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def folders(tmp_path: Path) -> Iterator[Path]:
    for i in range(MOMENTS + 1):
        yield tmp_path / f"out{i}"


def test_whatever_is_hit_and_whenever_the_rows_are_those_of_an_undisturbed_run(bench: Bench, tmp_path: Path) -> None:
    sweep = tmp_path / "tiny.yaml"
    sweep.write_text(TINY)
    began = time.monotonic()
    assert bench("run", sweep, "--out", tmp_path / "alone").returncode == 0
    takes = time.monotonic() - began
    keys = sorted(map(key_of, rows_of(tmp_path / "alone")))
    assert len(keys) == len(set(keys)) == 2 * 2 * 2

    every, chance, done, hits = folders(tmp_path), random.Random(20), [], Counter[str]()
    out = next(every)
    for _ in range(MOMENTS):
        running = bench.start("run", sweep, "--out", out, "--retry", "crashed,error,timeout")
        wait_for(lambda p=running: heeds_signals(p.pid) or p.poll() is not None)
        time.sleep(chance.uniform(0, takes * 0.5))
        number = chance.choice(SIGNALS)
        workers = children_of(running.pid) if chance.random() < 0.4 and running.poll() is None else []
        target = chance.choice(workers) if workers else running.pid
        try:
            os.kill(target, number)
            hits["worker" if workers else "run"] += 1
        except ProcessLookupError:  # it was done already
            hits["nothing"] += 1
        _, said = running.communicate(timeout=120)
        assert "Traceback" not in said, (number, said)
        if running.returncode == 0:
            done.append(out)
            out = next(every)
    last = bench("run", sweep, "--out", out, "--retry", "crashed,error,timeout")
    assert last.returncode == 0, last.stderr
    assert hits["run"] > 20 and hits["worker"] > 5, hits
    for folder in (*done, out):
        rows = rows_of(folder)
        assert sorted(key_of(r) for r in rows if r["status"] == "ok") == keys, "each is there, and measured once"
        assert {key_of(r) for r in rows} == set(keys)
        first_ok = {key_of(r): i for i, r in reversed(list(enumerate(rows))) if r["status"] == "ok"}
        assert all(i < first_ok[key_of(r)] for i, r in enumerate(rows) if r["status"] != "ok"), "failed ones came first"
        csv = (folder / "rows.csv").read_text().splitlines()
        assert len(csv) == 1 + len(keys)
