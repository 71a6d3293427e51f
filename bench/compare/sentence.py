"""What a comparison comes to, in one plain sentence, and how much of it may be luck."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.case.clocks import CLOCKS
from bench.compare.folders import Pair, describe
from bench.compare.verdict import LUCK, MIN_PROCESSES, Outcome, Process, Verdict, judge, smallest_change
from bench.errors import listed

Judged = tuple[Pair, Outcome]

# The clock and pass that stand for a case where it has several: what a training script sees, of all the work.
HEADLINE = tuple(name for name in CLOCKS if name != "host")
PASSES = ("forward-backward", "step", "forward", "backward")


@dataclass(frozen=True)
class Headline:
    """The comparison in one number: a single case, or the geometric mean of several."""

    pass_: str
    clock: str
    outcome: Outcome
    slowest: Judged  # the case with the largest B/A, and the smallest
    fastest: Judged
    cases: int
    sentence: str


NOTHING = "No row has times on both sides: there is nothing to compare."


def closing(judged: Sequence[Judged], head: Headline | None) -> str:
    """The last sentence: the headline's, or why there is none."""
    if head or not judged:
        return head.sentence if head else NOTHING
    if any(o.low is not None for _, o in judged):
        return f"No mean of the cases: fewer than {MIN_PROCESSES} repeats have all of them. Each row has its verdict."
    whys = listed(list(dict.fromkeys(o.why for _, o in judged)))
    return (
        f"No verdict: {whys}. It needs {MIN_PROCESSES} processes a side, measured in turns:"
        f" python -m bench compare --run {MIN_PROCESSES} CHECKOUT_A CHECKOUT_B"
    )


def headline(judged: Sequence[Judged]) -> Headline | None:
    """The headline of the rows whose ratio has an interval; None where there are none. No ratio that was refused a
    verdict is in a mean."""
    sound = [(p, o) for p, o in judged if o.low is not None]
    found = {(p.key[1], p.key[2]) for p, _ in sound}
    if not found:
        return None
    pass_, clock = min(found, key=lambda k: (_place(HEADLINE, k[1]), _place(PASSES, k[0]), k))
    chosen = [(p, o) for p, o in sound if p.key[1:] == (pass_, clock)]
    every = sum(p.key[1:] == (pass_, clock) for p, _ in judged)
    slowest, fastest = (f(chosen, key=lambda j: j[1].ratio) for f in (max, min))
    outcome = (
        chosen[0][1] if len(chosen) == 1 else judge(*_mean_of_cases([p for p, _ in chosen]), smallest_change(clock))
    )
    if outcome.low is None:
        return None
    what = f"{pass_}, clock {clock}"
    if len(chosen) == 1:
        sentence = f"{_said(outcome)} on {describe(chosen[0][0].axes, chosen[0][0].key[0])}: {what}."
    else:
        ends = "; ".join(
            f"{word} {describe(p.axes, p.key[0])}, B/A {o.ratio:.3f}, {o.cell}"
            for word, (p, o) in (("slowest", slowest), ("fastest", fastest))
        )
        of = f" of {every}" if every > len(chosen) else ""
        sentence = f"{_said(outcome).rstrip(',')}, geometric mean over {len(chosen)}{of} cases: {what} ({ends})."
    return Headline(pass_, clock, outcome, slowest, fastest, len(chosen), sentence)


def _place(order: tuple[str, ...], word: str) -> int:
    return order.index(word) if word in order else len(order)


def _mean_of_cases(pairs: Sequence[Pair]) -> tuple[list[Process], list[Process]]:
    """Each side as if a sweep were one case: the geometric mean over cases of the medians of one repeat.

    Cases of one repeat share their process or at least their minute, so their ratios are not independent: repeats are
    what may be resampled. A repeat in which some case has no time does not count.
    """

    def one_side(groups: list[tuple[Process, ...]]) -> list[Process]:
        by_repeat = [{p.repeat: p for p in group} for group in groups]
        shared = [r for r in by_repeat[0] if all(r in g for g in by_repeat)]
        result = []
        for repeat in shared:
            found = [g[repeat] for g in by_repeat]
            mean = float(np.exp(np.mean([np.log(p.median_ms) for p in found])))
            times = [p.at for p in found]
            at = None if None in times else min(t for t in times if t)
            result.append(Process(found[0].name, repeat, mean, at))
        if result:
            return result
        # No repeat has all the cases: one mean of everything, which carries a ratio and no verdict.
        logs = [np.mean([np.log(p.median_ms) for p in group]) for group in groups]
        return [Process(groups[0][0].name, 0, float(np.exp(np.mean(logs))), None)]

    return one_side([p.a for p in pairs]), one_side([p.b for p in pairs])


def _said(o: Outcome) -> str:
    """The outcome as the beginning of a sentence. Faster and slower are given by how many times, with the larger side
    of the interval."""
    assert o.low is not None and o.high is not None, "a headline has an interval"
    if o.verdict is Verdict.FASTER:
        return f"B ran {_times(1 / o.ratio, 1 / o.high, 1 / o.low)} times faster than A"
    if o.verdict is Verdict.SLOWER:
        return f"B took {_times(o.ratio, o.low, o.high)} times as long as A"
    if o.verdict is Verdict.SAME:
        return f"B ran as fast as A, within {o.smallest:.0%},"
    return f"It is unclear whether B is faster than A (B/A {o.ratio:.3f}, 95 % interval {o.low:.3f} to {o.high:.3f})"


def _times(value: float, low: float, high: float) -> str:
    """'1.47 +- 0.03', to as many digits as the interval needs for one."""
    half = max(value - low, high - value)
    digits = 2 if half >= 0.005 or half == 0 else 3
    return f"{value:.{digits}f} +- {half:.{digits}f}"


def tally(judged: Sequence[Judged]) -> str:
    """How many comparisons were made, what they came to, and how many verdicts chance alone would give."""
    counts = Counter(o.verdict for _, o in judged)
    words = [(v, str(v)) for v in Verdict] + [(None, "without a verdict")]
    parts = [f"{counts[v]} {word}" for v, word in words if counts[v]]
    text = f"{len(judged)} comparison{'s' * (len(judged) != 1)}: {', '.join(parts) or 'none'}."
    tested = sum(o.low is not None for _, o in judged)
    if tested > 1:
        text += (
            f" Each verdict stands for itself: of {tested} on identical code, up to {LUCK * tested:.2g} would be FASTER"
            " or SLOWER by luck."
        )
    return text
