"""What makes trainings comparable, and how they compare."""

from collections.abc import Sequence
from math import hypot

import numpy as np
from numpy.typing import NDArray

from plots.data.run_ratios import base_run
from plots.data.training_runs import Run

BASES = ("lora", "full")  # whose step the others' are told by: the first that was trained


def is_untrained(run: Run) -> bool:
    """The model as it was before any training."""
    return run.strategy == "no-tuning" or run.method == "none"


def groups_by(runs: Sequence[Run], alike: bool) -> list[tuple[str, list[Run]]]:
    """Runs of one model under its name; with `alike` those that were evaluated alike too."""
    found: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        found.setdefault((run.subject, run.by if alike else ""), []).append(run)
    several = len({by for _, by in found}) > 1
    return [(f"{model}: {by}" if several and by else model, group) for (model, by), group in found.items()]


def pareto(runs: Sequence[Run]) -> list[Run]:
    """Those that no other run matches in less time, or beats in the same, from the fastest to the most accurate."""
    front: list[Run] = []
    for run in sorted(runs, key=lambda r: (r.seconds or 0.0, -r.scores["average"])):
        if not front or run.scores["average"] > front[-1].scores["average"]:
            front.append(run)
    return front


def smoothed(values: Sequence[float]) -> NDArray[np.float64]:
    """The moving mean over a tenth of the values around each, fewer at the ends."""
    x = np.asarray(values, dtype=np.float64)
    half = len(x) // 20
    sums = np.concatenate(([0.0], np.cumsum(x)))
    at = np.arange(len(x))
    low, high = np.maximum(at - half, 0), np.minimum(at + half + 1, len(x))
    mean: NDArray[np.float64] = (sums[high] - sums[low]) / (high - low)
    return mean


def base_method(runs: Sequence[Run]) -> str:
    """The method whose step is the base of the page's ratios."""
    return next((m for m in BASES if any(base_run(run, runs, m) for run in runs)), BASES[0])


def as_good(run: Run, best: Run) -> bool:
    """Whether two accuracies lie within two standard errors of their difference; not where these are unknown."""
    errors = [r.errors.get("average") for r in (run, best)]
    if None in errors:
        return False
    return best.scores["average"] - run.scores["average"] <= 2 * hypot(*(e or 0.0 for e in errors))
