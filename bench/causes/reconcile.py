"""From profiled calls to a Split whose parts add up to the measured median. No torch."""

from collections.abc import Mapping, Sequence
from statistics import median

from bench.case.causes import CAUSES
from bench.causes.attribution import Tally
from bench.record.causes import Part, Split
from bench.record.stats import summarize

Call = Mapping[str, Tally]  # one pass of one call, by cause


def on_cpu(calls: Sequence[Call], plain_ms: Sequence[float], median_ms: float) -> Split:
    """A pass by its operators. plain_ms: the clock's samples of the same work in the same process, without a profiler.

    What a call takes beyond its operators is `gaps`. Where the profiler's own cost makes the operators take longer than
    the call itself, all of them give way alike, and the remainder says how much.
    """
    plain = median(plain_ms)
    worked = _medians(calls)
    busy = sum(worked.values())
    gaps = max(0.0, plain - busy)
    remainder = (busy - plain) / plain if busy > plain else worked.get("left_over", 0.0) / plain
    shrunk = min(1.0, plain / busy) if busy else 1.0
    parts = _parts(calls, shrunk * median_ms / plain)
    ends = summarize([p - sum(t.us for t in c.values()) / 1e3 for p, c in zip(plain_ms, calls, strict=False)])
    low, high = (max(0.0, end) * median_ms / plain for end in (ends.ci_low_ms, ends.ci_high_ms))
    own = gaps * median_ms / plain
    parts["gaps"] = Part(own, min(low, own), max(high, own))
    return Split(_in_order(parts), median_ms / plain, remainder, "operators")


def on_gpu(calls: Sequence[Call], median_ms: float, work_ms: float | None) -> Split:
    """A pass by its kernels, under a clock that sees `median_ms`. work_ms: the median of a clock that sees the GPU's
    work alone (graph, else device), to which the kernels are scaled; what the clock sees beyond it is `gaps`. None:
    the kernels stand as the profiler timed them, as far as they fit in.
    """
    worked = _medians(calls)
    busy = sum(worked.values())
    of_kernels = min(busy if work_ms is None else work_ms, median_ms)
    scale = of_kernels / busy if busy else 1.0
    off = 0.0 if work_ms is None and busy <= median_ms else abs(busy / of_kernels - 1) if of_kernels else 1.0
    parts = _parts(calls, scale)
    if median_ms > of_kernels:
        parts["gaps"] = Part(median_ms - of_kernels)
    left = worked.get("left_over", 0.0) / busy if busy else 0.0
    return Split(_in_order(parts), scale, max(off, left), "kernels")


def _medians(calls: Sequence[Call]) -> dict[str, float]:
    """ms of each cause: its median over the calls."""
    causes = {cause for call in calls for cause in call}
    return {c: median([call[c].us / 1e3 if c in call else 0.0 for call in calls]) for c in causes}


def _parts(calls: Sequence[Call], scale: float) -> dict[str, Part]:
    parts = {}
    for cause in {cause for call in calls for cause in call}:
        there = [call.get(cause, Tally()) for call in calls]
        s = summarize([t.us / 1e3 for t in there])
        first = there[0]
        parts[cause] = Part(
            s.median_ms * scale, s.ci_low_ms * scale, s.ci_high_ms * scale, first.launches, first.bytes, first.flops
        )
    return parts


def _in_order(parts: Mapping[str, Part]) -> dict[str, Part]:
    return {cause: parts[cause] for cause in CAUSES if cause in parts}
