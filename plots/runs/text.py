"""A page of trainings in words: the answer, what is to be known before it, and where it comes from."""

from collections.abc import Iterator, Sequence

from bench.errors import listed
from bench.record.numbers import with_interval
from bench.record.stats import RATIO_TELLS, Estimate
from plots.data.labels import distinct, method_label
from plots.data.run_ratios import base_run, step_ratio
from plots.data.training_runs import Run, duration_word
from plots.runs.compared import as_good, base_method, groups_by
from plots.text.numbers import RATIOS_OF_RUNS, score_words

READING = (
    "An accuracy stands with its standard error, sqrt(p (1 - p) / n) of n independent items. All runs answer the same "
    "items, so a difference between two of them is better known than the two errors say.",
    "Final loss is the mean over the last tenth of the steps, on the training data.",
    "Tokens per second are those of the examples, without padding, over the wall clock of the whole training.",
    RATIOS_OF_RUNS,
)


def answers(runs: Sequence[Run]) -> list[str]:
    """The most accurate run and those as good, for what was evaluated alike; and how long a step takes beside the
    base's."""
    known = [run for run in runs if "average" in run.scores]
    told = [_most_accurate(name, group) for name, group in groups_by(known, alike=True)]
    told += [words for name, group in groups_by(runs, alike=False) for words in _steps(name, group)]
    return told or ["None of these runs was evaluated, and none can be compared with another."]


def _most_accurate(name: str, runs: Sequence[Run]) -> str:
    best = max(runs, key=lambda run: run.scores["average"])
    after = f", after {duration_word(best.seconds)} of training" if best.seconds else ""
    equals = [run.name for run in runs if run is not best and as_good(run, best)]
    also = (
        f" {listed(equals)} {'lies' if len(equals) == 1 else 'lie'} within two standard errors of it." if equals else ""
    )
    return f"{name}: most accurate is {best.name} with {score_words(best)['average']} %{after}.{also}"


def _steps(name: str, runs: Sequence[Run]) -> Iterator[str]:
    method = base_method(runs)
    others = [run for run in runs if run is not base_run(run, runs, method)]
    ratios = [(run, found) for run in others if (found := step_ratio(run, runs, method))]
    ratios.sort(key=lambda pair: pair[1].value)
    told = [f"{run.name} took {with_interval(found)} times" for run, found in ratios if _tells(found)]
    if told:
        yield f"{name}: of {method_label(method)}'s median step, {listed(told)}."
    if vague := [run.name for run, found in ratios if not _tells(found)]:
        yield (
            f"{name}: the steps of {listed(vague)} are too uncertain for an answer: the interval of the ratio to "
            f"{method_label(method)} is wider than ±{100 * RATIO_TELLS:.0f} %, or there is none."
        )


def _tells(ratio: Estimate) -> bool:
    return ratio.within(RATIO_TELLS)


def notices(runs: Sequence[Run]) -> list[str]:
    """What is to be known before any number."""
    devices = distinct(run.device for run in runs if run.seconds)
    told = ["Trained on a CPU: these times say nothing about a GPU."] if "cpu" in devices else []
    if len(devices) > 1:
        told.append(f"Trained on different devices, whose times do not compare: {listed(devices)}.")
    return told


def sources(runs: Sequence[Run]) -> Iterator[str]:
    """A line for each run: where it lies, what it was trained on, and how it was evaluated."""
    for run in runs:
        trained = f"{run.examples:,} examples in {run.steps:,} steps" if run.examples and run.steps else ""
        names = ("batch", "accumulation", "length", "precision", "processes", "optimizer", "checkpointing")
        settings = zip(names, run.conditions[1:], strict=True)
        told = ", ".join(f"{name} {value}" for name, value in settings if value is not None and run.steps)
        parts = (trained, told, f"on {run.device}" if run.device and run.steps else "", run.by, f"model {run.model}")
        yield f"{run.path}: {'; '.join(filter(None, parts))}"
