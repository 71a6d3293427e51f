"""What a step of real training took, and how that compares: with another training, and with the paper's."""

import statistics
from collections.abc import Sequence

from bench.record.stats import Estimate, Measured, generator, median_draws
from plots.data.training_runs import LENGTH, Published, Run, is_papers

PAPERS = (8, 4, LENGTH, "amp-fp16", 1, None, None)  # its CONDITIONS: Table 3's, and AdamW without checkpointing


def median_step(run: Run) -> Measured | None:
    """Seconds of the median step, those that warm up left out; None where no step is known."""
    steps = run.later_steps
    return Measured(statistics.median(steps), median_draws(steps, generator(*steps))) if steps else None


def base_run(run: Run, runs: Sequence[Run], method: str = "lora") -> Run | None:
    """The training of all layers that a training is compared with: of the same model, on the same device, of equal
    steps."""
    return next(
        (
            other for other in runs
            if (other.method, other.scaling) == (method, None) and other.layers in (None, "all") and _mean_step(other)
            and (other.model, other.conditions) == (run.model, run.conditions)
        ),
        None,
    )  # fmt: skip


def step_ratio(run: Run, runs: Sequence[Run], method: str = "lora") -> Estimate | None:
    """The median step over that of `base_run`. Where one of the two tells no steps, the mean over the wall clock over
    the other's, without an interval. None where there is no such run."""
    base = base_run(run, runs, method)
    mean = _mean_step(run)
    if base is None or mean is None:
        return None
    if run is base:
        return Estimate(1.0)
    ours, theirs = median_step(run), median_step(base)
    return (ours / theirs).estimate if ours and theirs else Estimate(mean / (_mean_step(base) or 1.0))


def _mean_step(run: Run) -> float | None:
    return run.seconds / run.steps if run.seconds and run.steps else None


def as_the_papers(run: Run, line: Published | None) -> bool:
    """Whether a run's model and settings are those of the paper's line, so that their ratios stand beside each other.
    What the run does not say counts as the paper's."""
    said = zip(run.conditions[1:], PAPERS, strict=True)
    return line is not None and is_papers(run.model) and all(ours in (None, theirs) for ours, theirs in said)
