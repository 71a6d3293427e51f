"""Cases side by side on several boards: a panel for each board, all with the same cases, labels and clock."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from bench.case import Case
from bench.case.clocks import CLOCKS
from bench.case.schema import BASELINE
from bench.errors import listed
from bench.record.ratios import baselines
from plots.data.labels import distinct, labels
from plots.data.panels import Panel
from plots.data.results import Ratio, Results


@dataclass(frozen=True, eq=False)
class Side:
    """Cases of one level, precision and L2 state, by board."""

    panels: dict[str, Panel]
    absent: dict[str, str]  # boards that are no column, and why

    @property
    def first(self) -> Panel:
        return next(iter(self.panels.values()))

    @cached_property
    def inexpressible(self) -> list[str]:
        """Training types of which no board can do a single case."""
        words: dict[str, set[str]] = {}
        for case in self.first.cases:
            words.setdefault(self.first.labels[case], set()).update(p.ratio(case).word for p in self.panels.values())
        return [type_ for type_, found in words.items() if "unsupported" in found <= {"unsupported", "not measured"}]

    @cached_property
    def cases(self) -> list[Case]:
        """In the order of a table, without those that the ratios are to and those that no board can do."""
        full, named = set(baselines(self.first.cases).values()), self.first.labels
        return [c for c in self.first.in_order if c not in full and named[c] not in self.inexpressible]

    @cached_property
    def types(self) -> dict[str, list[Case]]:
        """The cases by training type, in the order of methods; ways of computing Full-FT last, since it is asked how
        the others compare with it."""
        found: dict[str, list[Case]] = {type_: [] for type_ in self.first.types}
        for case in self.cases:
            found[self.first.labels[case]].append(case)
        there = [(type_, cases) for type_, cases in found.items() if cases]
        return dict(sorted(there, key=lambda item: item[1][0].method == BASELINE))

    @property
    def ratios(self) -> list[Ratio]:
        return [r for panel in self.panels.values() for case in self.cases if (r := panel.ratio(case)).value]

    @property
    def base(self) -> str:
        return " or ".join(distinct(name for panel in self.panels.values() for name in panel.baselines)) or "Full-FT"


def verdict(ratio: Ratio) -> str:
    """slower, faster or undecided, by its interval; empty without a ratio."""
    if ratio.value is None or ratio.by_definition:
        return ""
    return "undecided" if not ratio.decided else "slower" if ratio.value.value > 1 else "faster"


def put_side_by_side(found: Mapping[str, Results]) -> list[Side]:
    """One for each level, precision and L2 state that two boards have, under the clock that most have of those: the
    first in the order of headlines."""
    groups: dict[tuple[str, str, str | None], dict[str, list[Case]]] = {}
    for name, results in found.items():
        for case in results.cases:
            groups.setdefault((case.level, case.precision, case.l2), {}).setdefault(name, []).append(case)
    sides = []
    for (level, precision, l2), of_boards in groups.items():
        if len(of_boards) < 2:
            continue
        cases = tuple(dict.fromkeys(case for own in of_boards.values() for case in own))
        clock, named = _clock({name: found[name] for name in of_boards}, cases), labels(cases)
        panels = {n: Panel(found[n], level, precision, l2, clock, cases, named) for n in of_boards}
        sides.append(Side(panels, {n: _why(results) for n, results in found.items() if n not in panels}))
    return sides


def _clock(found: Mapping[str, Results], cases: tuple[Case, ...]) -> str:
    counts = Counter(c for r in found.values() for c in r.clocks if any(r.has(case, c) for case in cases))
    order = [*CLOCKS, *counts]
    return max(counts, key=lambda clock: (counts[clock], -order.index(clock)), default="none")


def _why(results: Results) -> str:
    if not results.cases:
        return "nothing has been measured there"
    kinds = distinct(f"level {c.level} in {c.precision}" for c in results.cases)
    return f"there was measured {listed(kinds)}"
