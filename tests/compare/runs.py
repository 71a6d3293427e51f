"""Processes and results folders made up for comparisons."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from bench.compare.verdict import Process
from tests.synthetic import START, abba, row, write_run

CALM = (2.000, 2.004, 1.998, 2.002, 1.996)  # ms of five processes, 0.2 % apart
WILD = (2.00, 2.20, 1.90, 2.10, 1.80)


def processes(name: str, minutes: Sequence[float], medians: Sequence[float]) -> list[Process]:
    times = [START + timedelta(minutes=m) for m in minutes]
    return [Process(f"{name}{i}", i, ms, at) for i, (ms, at) in enumerate(zip(medians, times, strict=True))]


def turns(a: Sequence[float], b: Sequence[float], order: str = "") -> tuple[list[Process], list[Process]]:
    """Processes in this order of sides; default ABBA."""
    order = order or abba(len(a))
    minutes = [[i for i, s in enumerate(order) if s == side] for side in "AB"]
    return processes("a", minutes[0], a), processes("b", minutes[1], b)


def scaled(by: float, medians: Sequence[float] = CALM) -> list[float]:
    return [by * x for x in medians]


def two_runs(tmp_path: Path, b: Sequence[float], a: Sequence[float] = CALM, **columns: Any) -> tuple[Path, Path]:
    """Folders a and b, measured in turns; one case."""
    ps = turns(a, b)
    lines = [
        [row(name, p.repeat, (p.at - START).seconds / 60, p.median_ms, **columns) for p in side if p.at]
        for name, side in zip("ab", ps, strict=True)
    ]
    return write_run(tmp_path / "a", lines[0]), write_run(tmp_path / "b", lines[1])
