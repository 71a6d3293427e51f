"""What the cases of a plan take on the wall, everything in it: from rooflines, and from what earlier runs recorded.

Where the results of earlier runs have a case, its times are theirs, and its comparison is taken to differ from the
model (bench.cluster.model) by the same factor as it did then: under the same settings it takes what it took. Where they
have cases like it, its times are as far from the roofline as theirs, and the factor is theirs.
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from bench.case import Case
from bench.case.shapes import named_models
from bench.cluster.history import Earlier, earlier
from bench.cluster.model import Board, Stages, board_of, pace, runnable, start_s
from bench.devices import Device
from bench.errors import UserError
from bench.runner.plan import comparisons
from bench.sweeps.expand import Plan
from bench.timing.duration import Pace

FURTHEST = 5.0  # that a recorded comparison may be from the model: beyond, something else went on


@dataclass(frozen=True)
class Prices:
    """What each case of a plan takes on the wall."""

    by_case: Mapping[Case, float]
    known: int  # cases that earlier runs have measured on such a device

    def seconds(self, case: Case) -> float:
        """Of one task of a case: its share of its comparison, and of the start of one run's processes. 0 where the
        device refuses it. Raises KeyError for a case that is none of the plan's."""
        return self.by_case[case]


def prices(plan: Plan, device: Device, folders: Iterable[Path] = ()) -> Prices:
    """The prices of a plan's cases on a device. folders: results of earlier runs, from which more is known; those that
    cannot be read, and those of another device, are passed over."""
    board = board_of(device)
    learnt = _Learnt(plan, device, board)
    for found in earlier(folders, device):
        learnt.add(found)
    there = runnable(plan, device)
    started = (start_s(there, board) + board.ceilings_s) / max(len(there), 1)
    stages = Stages(plan, device, board)
    by_case = dict.fromkeys(plan.cases, 0.0)
    for group in comparisons((0, c) for c in there):
        for case, seconds in stages.compare([c for _, c in group], learnt.pace).items():
            by_case[case] = started + learnt.longer.near(_near(case)) * seconds
    return Prices(by_case, sum(learnt.knows(c) for c in there))


class _Near:
    """Numbers by how near they are."""

    def __init__(self) -> None:
        self._found: dict[Hashable, list[float]] = {}
        self._medians: dict[Hashable, float] = {}  # worked out so far

    def add(self, keys: Iterable[Hashable], value: float) -> None:
        for key in keys:
            self._found.setdefault(key, []).append(value)
            self._medians.pop(key, None)

    def near(self, keys: Iterable[Hashable]) -> float:
        """The median of those that have the first of the keys that any has; 1 where none has one."""
        key = next((key for key in keys if key in self._found), None)
        if key is None:
            return 1.0
        if key not in self._medians:
            self._medians[key] = median(self._found[key])
        return self._medians[key]


def _near(case: Case) -> tuple[Hashable, ...]:
    return case, (case.level, case.model), case.level


def _trained_near(case: Case, clock: str) -> tuple[Hashable, ...]:
    here = (clock, case.level, case.precision)
    return (*here, case.method, case.impl), (*here, case.method), here


class _Learnt:
    """What earlier runs tell of a plan's cases."""

    def __init__(self, plan: Plan, device: Device, board: Board) -> None:
        self._plan, self._device, self._board = plan, device, board
        self._models = {None, *named_models(), *(case.model for case in plan.cases)}
        self._parts: dict[tuple[Case, str], tuple[float, ...]] = {}  # seconds of a call, and of a step; the latest
        self._slower = _Near()  # a call over what it was expected to take
        self.longer = _Near()  # a comparison over what the model has for it
        self._stages: dict[Hashable, Stages] = {}

    def knows(self, case: Case) -> bool:
        return any((case, clock) in self._parts for clock in self._plan.clocks)

    def pace(self, case: Case, clock: str) -> Pace:
        """What a call is expected to take, by what is known of it or of its like."""
        expected = pace(case, self._plan, self._board, clock)
        slower = self._slower.near(_trained_near(case, clock))
        known = self._parts.get((case, clock), ())[: len(expected.parts)]
        parts = (*known, *(slower * part for part in expected.parts[len(known) :]))
        hung = self._plan.settings.timeout_s  # is a worker taken for, that says nothing for longer
        return replace(expected, parts=tuple(min(part, hung) for part in parts))

    def add(self, found: Earlier) -> None:
        """A row may tell of what this version does not know, or of what cannot be; such a comparison tells nothing. A
        model that is neither the plan's nor ours would have to be asked for, and tells nothing either."""
        if not {case.model for case in found.ms} <= self._models:
            return
        passes, clocks = found.keys()
        then = replace(self._plan, passes=passes, clocks=clocks, settings=found.settings or self._plan.settings)
        how = (found.run, passes, clocks, then.settings)
        stages = self._stages.setdefault(how, Stages(then, self._device, self._board))
        try:
            expected = {(c, k): pace(c, then, self._board, k) for c in found.ms for k in clocks}
            paces = {(c, k): _measured(found.ms[c], k) or p.parts for (c, k), p in expected.items()}
            taken = {key: replace(p, parts=paces[key]) for key, p in expected.items()}
            modelled = sum(stages.compare(list(found.ms), lambda c, k: taken[c, k]).values())
        except (UserError, ValueError, LookupError, AssertionError, TypeError, ArithmeticError):
            return
        for (case, clock), p in expected.items():
            if parts := _measured(found.ms[case], clock):
                self._parts[case, clock] = parts
                self._slower.add(_trained_near(case, clock), parts[0] / p.first)
        modelled += self._board.context_s * found.new + (0.0 if found.goes_on else self._board.import_s)
        if modelled and 1 / FURTHEST <= found.seconds / modelled <= FURTHEST:
            self.longer.add({key for case in found.ms for key in _near(case)}, found.seconds / modelled)


def _measured(medians: Mapping[tuple[str, str], float], clock: str) -> tuple[float, ...]:
    """Seconds of a micro-step, and where one was timed of a whole step; nothing where the first is not known."""
    ms = {p: value for (p, c), value in medians.items() if c == clock}
    first = ms.get("forward-backward", ms.get("forward", 0.0) + ms.get("backward", 0.0))
    parts = (first, *([ms["step"]] if "step" in ms else []))
    return tuple(part / 1e3 for part in parts) if first else ()
