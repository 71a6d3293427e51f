"""From profiled calls to a Split whose parts add up to the measured median. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

from bench.case.causes import CAUSES
from bench.causes.attribution import Tally
from bench.record.causes import Part, Split
from bench.record.stats import summarize

Call = Mapping[str, Tally]  # one pass of one call, by cause


def on_cpu(calls: Sequence[Call], plain_ms: Sequence[float], median_ms: float) -> Split:
    """A pass by its operators. plain_ms: the clock's samples of the same work in the same process, without a profiler.

    What a plain call takes beyond its operators is `gaps`, but no more than a profiled one does, whose gaps hold the
    profiler's own cost. What then is still between the two is the remainder, and every cause takes its share of it.
    """
    worked = _medians(calls)
    idle = worked.pop("gaps", 0.0)
    busy = sum(worked.values())
    plain = median(plain_ms) or busy + idle  # CPU time does not always move in a short call
    gaps = min(idle, max(0.0, plain - busy))
    total = busy + gaps
    parts = _parts(calls, median_ms / total)
    if idle:
        # Below those of a profiled call they are what is left of two medians, and may be anything up to them.
        sure = gaps == idle
        found = _part([call["gaps"].us / 1e3 for call in calls], median_ms / total)
        parts["gaps"] = found if sure else Part(gaps * median_ms / total, 0.0, found.ms)
    remainder = max(abs(plain - total) / plain, worked.get("left_over", 0.0) / total)
    return Split(_in_order(parts), median_ms / plain, remainder, "operators")


def on_gpu(calls: Sequence[Call], median_ms: float, work_ms: float | None) -> Split:
    """A pass by its kernels, under a clock that sees `median_ms`. work_ms: the median of a clock that sees the GPU's
    work alone (graph, else device), to which the kernels are scaled; what the clock sees beyond it is `gaps`. None:
    the kernels stand as the profiler timed them, as far as they fit in.
    """
    worked = _medians(calls)
    busy = sum(worked.values())
    if not busy:
        return Split({"gaps": Part(median_ms)}, None, 1.0, "kernels")
    of_kernels = min(busy if work_ms is None else work_ms, median_ms)
    scale = of_kernels / busy
    off = abs(busy / of_kernels - 1)
    parts = _parts(calls, scale)
    if median_ms > of_kernels:
        parts["gaps"] = Part(median_ms - of_kernels)
    left = worked.get("left_over", 0.0) / busy
    return Split(_in_order(parts), scale, max(off, left), "kernels")


def _medians(calls: Sequence[Call]) -> dict[str, float]:
    """ms of each cause: its median over the calls."""
    causes = {cause for call in calls for cause in call}
    return {c: median([call[c].us / 1e3 if c in call else 0.0 for call in calls]) for c in causes}


def _parts(calls: Sequence[Call], scale: float) -> dict[str, Part]:
    parts = {}
    for cause in {cause for call in calls for cause in call}:
        there = [call.get(cause, Tally()) for call in calls]
        did = there[0]
        # Of kernels that no operator launched, as Triton's, operands and products are not known.
        known = did.bytes > 0 or did.launches == 0
        part = _part([t.us / 1e3 for t in there], scale)
        parts[cause] = replace(
            part, launches=did.launches, bytes=did.bytes if known else None, flops=did.flops if known else None
        )
    return parts


def _part(ms: Sequence[float], scale: float) -> Part:
    found = summarize(ms)
    return Part(found.median_ms * scale, found.ci_low_ms * scale, found.ci_high_ms * scale)


def _in_order(parts: Mapping[str, Part]) -> dict[str, Part]:
    return {cause: parts[cause] for cause in CAUSES if cause in parts}
