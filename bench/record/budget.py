"""What a person budgets with, out of rows that are on record: tokens a second, and model FLOPs utilization over a peak.

rows.csv, `bench.read` and the tables take it from here, so that the same row never has two values.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from bench.case import AXES, Case, read_case
from bench.case.schema import Status
from bench.record.stats import Estimate
from bench.roofline.peaks import PEAK_OF, Peaks, peaks_of

Row = dict[str, Any]

TRAINS = ("step", "forward-backward")  # a whole optimizer step, or a micro-step
ON_CPU = ("cpu-time", "cpu")  # clocks
UNITS = {"tflops": 1.0, "gflops": 1e-3, "tbs": 1.0, "gbs": 1e-3}  # of run.json's ceilings, in TFLOP/s and TB/s


def tokens_of(case: Case, pass_: str) -> int:
    """Tokens in one call of a pass: those of all micro-steps in a step."""
    return case.tokens * (case.micro_steps if pass_ == "step" else 1)


def tokens_per_s(time_ms: Estimate, tokens: int) -> Estimate:
    """Of a time above zero."""
    return time_ms.inverse().times(1e3 * tokens)


def cost_of_million(time_ms: Estimate, tokens: int, price: float) -> Estimate:
    """Of a million tokens, where so many take that time; price: of an hour."""
    return time_ms.times(price / 3.6e6 * 1e6 / tokens)


def utilization(time_ms: Estimate, flops: float, peak_tflops: float) -> Estimate:
    """Model FLOPs utilization of a time above zero, as a share of the peak."""
    return time_ms.inverse().times(flops / 1e9 / peak_tflops)


def measured_peaks(run: Mapping[str, Any]) -> dict[str, float]:
    """What run.json has as measured on this machine: TFLOP/s of one big matrix product by the dtype, and TB/s of one
    big copy under 'copy'."""
    found = {}
    for key, value in (run.get("ceilings") or {}).items():
        name, _, unit = key.partition("_")
        if unit in UNITS and isinstance(value, float) and value > 0:
            found[name] = value * UNITS[unit]
    return found


def dtype_of(precision: str | None) -> str:
    """What the matrix products of a case are computed in."""
    return (precision or "").removeprefix("amp-")


@cache
def _sheet(gpu: str, sm_count: int | None) -> Peaks | None:
    return peaks_of(gpu, sm_count)


def peak_tflops(run: Mapping[str, Any], gpu: str | None, precision: str) -> tuple[float, str] | None:
    """The peak that utilization is over, and where it comes from: the data sheet of a GPU, or what was measured on the
    machine. gpu: its full name; None for a CPU. None where neither is known."""
    sheet = _sheet(gpu, run.get("sm_count")) if gpu and precision in PEAK_OF else None
    if sheet is not None:
        return sheet.tflops(precision), "the data sheet's dense"
    measured = measured_peaks(run).get(dtype_of(precision))
    return None if measured is None else (measured, "one big matrix product measured on this machine in")


def with_budget(rows: Iterable[Row], run: Mapping[str, Any]) -> list[Row]:
    """The rows of a record with the columns that are derived from them. run: its run.json. Rows of any age."""
    return [row | _derived(row, run) for row in rows]


def _derived(row: Row, run: Mapping[str, Any]) -> Row:
    case = read_case(row)
    tokens = tokens_of(case, row["pass"]) or None
    found: Row = {"comparison": comparison_id(case), "tokens": tokens, "tokens_per_s": None, "mfu": None}
    if not (tokens and row["median_ms"] and row["status"] == Status.ok and _tells(case, row)):
        return found
    time = Estimate(row["median_ms"])
    on_cpu = row["clock"] in ON_CPU or run.get("gpu_key") == "cpu"
    peak = peak_tflops(run, None if on_cpu else row["gpu"] or run.get("gpu"), case.precision)
    mfu = utilization(time, row["flops"], peak[0]).value if row["flops"] and peak else None
    return found | {"tokens_per_s": tokens_per_s(time, tokens).value, "mfu": mfu}


def _tells(case: Case, row: Row) -> bool:
    """Whether the row's time is one that passes while a model, or a block of it, trains."""
    several = row["clock"] == "cpu-time" and (row["threads"] or 1) > 1
    return case.level != "linear" and row["pass"] in TRAINS and row["clock"] != "host" and not several


@cache
def comparison_id(case: Case) -> str:
    """12 hex digits over the axes that a ratio must share."""
    axes = {name: getattr(case, name) for name, axis in AXES.items() if axis.compared}
    axes = {name: value for name, value in axes.items() if AXES[name].since == 1 or value is not None}
    return hashlib.sha256(json.dumps(axes, sort_keys=True).encode()).hexdigest()[:12]
