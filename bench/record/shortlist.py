"""Which way of training to choose among those timed under equal conditions: the one rule behind the report's answer and
`bench advise`.

The fastest of each method stands in the list, Full-FT, and what most people have, which is PEFT. What the intervals do
not tell apart is a tie, and what they tell nothing of is not told at all. BitFit is listed as the floor of what any
method costs, and is no answer.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from bench.case import Case
from bench.case.schema import BASELINE, FLOOR
from bench.errors import listed
from bench.record.numbers import with_interval
from bench.record.stats import RATIO_TELLS, Estimate

PEFT = ("peft-fp32", "peft")  # impls as get_peft_model makes them: of 16-bit weights the first, else the second
MOST = 8  # lines

Over = Callable[[Case, Case], Estimate | None]  # the time of one case over that of another, paired where it can be


@dataclass(frozen=True)
class Option:
    """A way of training, with its time in ms, its time over Full-FT's (None of Full-FT itself, and where there is
    none), its peak memory in GiB where that is known, and why it cannot be used, in words, where that is so."""

    case: Case
    name: str
    ms: Estimate
    ratio: Estimate | None = None
    gib: float | None = None
    bar: str = ""

    @property
    def is_baseline(self) -> bool:
        return self.case.method == BASELINE and self.ratio is None

    @property
    def tells(self) -> bool:
        """Whether its time may stand in a sentence."""
        return self.is_baseline or (self.ratio is not None and self.ratio.within(RATIO_TELLS))

    @property
    def usable(self) -> bool:
        """Whether it may be what to use."""
        return self.tells and not self.bar and self.case.method != FLOOR


def shortlist(options: Sequence[Option], most: int = MOST) -> list[Option]:
    """At most so many, the fastest first: the fastest of each method, Full-FT, PEFT's, and then whatever is fast."""
    by_time = sorted(options, key=lambda o: o.ms.value)
    wanted = [*filter(None, [baseline(options), of_peft(options)]), *fastest_of_each(options).values(), *by_time]
    kept = set(map(id, list({id(o): o for o in wanted}.values())[:most]))
    return [o for o in by_time if id(o) in kept]


def fastest_of_each(options: Iterable[Option]) -> dict[str, Option]:
    """The fastest of each method, by its name; the fastest method first."""
    found: dict[str, Option] = {}
    for option in sorted(options, key=lambda o: o.ms.value):
        found.setdefault(option.case.method, option)
    return found


def baseline(options: Sequence[Option]) -> Option | None:
    """Full-FT, which ratios are over."""
    return next((o for o in options if o.is_baseline), None)


def of_peft(options: Sequence[Option]) -> Option | None:
    """What most people have."""
    found = {o.case.impl: o for o in reversed(options) if o.case.method == "lora"}
    return next((found[impl] for impl in PEFT if impl in found), None)


def leaders(options: Sequence[Option], over: Over) -> list[Option]:
    """The fastest, and behind it what ties with it: the interval of their ratio to it reaches down to 1, and those of
    both ratios to Full-FT, which may be paired where that one is not, overlap."""
    told = sorted((o for o in options if o.usable), key=lambda o: o.ms.value)
    if not told:
        return []
    best = told[0]
    return [best, *(o for o in told[1:] if _overlap(o.ratio, best.ratio) and _may_be_one(over(o.case, best.case)))]


def _overlap(slower: Estimate | None, faster: Estimate | None) -> bool:
    low, high = slower.low if slower else 1.0, faster.high if faster else 1.0
    return low is None or high is None or low <= high


def _may_be_one(ratio: Estimate | None) -> bool:
    return ratio is None or ratio.low is None or ratio.low <= 1


def verdicts(options: Sequence[Option], over: Over) -> list[str]:
    """A few words for each: what it is beside the others."""
    first = leaders(options, over)
    return [_verdict(o, first) for o in options]


def _verdict(option: Option, first: Sequence[Option]) -> str:
    if option.bar:
        return option.bar
    if not option.tells:
        return "too noisy to tell"
    if option.case.method == FLOOR:
        return "the floor: what trains next to nothing"
    if option in first:
        return "fastest" if len(first) == 1 else "ties for the fastest"
    if option.is_baseline:
        return "the baseline"
    assert option.ratio is not None
    if _may_be_one(option.ratio):
        return "faster than Full-FT" if (option.ratio.high or 2) < 1 else "ties with Full-FT"
    return "slower than Full-FT"


def sentence(
    options: Sequence[Option],
    over: Over,
    of: str = "forward-backward",
    write: Callable[[Estimate], str] = with_interval,
) -> str:
    """What to use, how much faster than what most people have, and at what memory; of: the pass that was timed, write:
    how a value and its interval are written. Empty where no time tells anything."""
    first = leaders(options, over)
    if not first:
        return ""
    best, base, peft = first[0], baseline(options), of_peft(options)
    tie = len(first) > 1
    said = f"{listed([o.name for o in first])} tie for the fastest" if tie else f"{best.name} is the fastest"
    if base and (ratios := [write(o.ratio) for o in first if o.ratio]):
        said += f": {listed(ratios)} times {base.name}'s {of}"
    told = [said]
    if peft and peft.usable and peft not in first and (slower := over(peft.case, best.case)):
        told.append(f"{peft.name}, which most people have, took {write(slower)} times as long as {best.name}")
    elif peft and not peft.tells:
        told.append(f"{peft.name}, which most people have, is too noisy to compare")
    told += [
        f"{o.name}, the fastest {o.name.split()[0]}, took {write(o.ratio)} times {base.name}'s"
        for method, o in fastest_of_each(o for o in options if o.usable).items()
        if base and o.ratio and o is not peft and method not in {led.case.method for led in first}
    ]
    return ". ".join([*told, *_memory(first, base, peft)]) + "."


def _memory(first: Sequence[Option], base: Option | None, peft: Option | None) -> list[str]:
    named = list({id(o): o for o in [*first, base, peft] if o and o.gib is not None}.values())
    return [f"Peak memory: {listed([f'{o.name} {o.gib:.3g} GiB' for o in named])}"] if named else []
