"""Cases that one table or one figure may hold."""

from dataclasses import dataclass, field, replace
from functools import cached_property

from bench.case import Case
from bench.methods.registry import methods
from plots.data.breakdown import Breakdown, make_breakdown
from plots.data.labels import labels, shape_word
from plots.data.results import Cell, Ratio, Results

MAX_TYPES = 8  # training types side by side in a figure


@dataclass(frozen=True, eq=False)
class Panel:
    """Cases of one level, precision and L2 state under one clock, with the results to look them up in."""

    results: Results
    level: str
    precision: str | None
    l2: str | None
    clock: str
    cases: tuple[Case, ...]
    labels: dict[Case, str]
    _breakdowns: dict[tuple[Case, str], Breakdown] = field(default_factory=dict, repr=False)

    def time(self, case: Case, pass_: str) -> Cell:
        """The time of a case under the panel's clock."""
        return self.results.get(case, pass_, self.clock)

    def ratio(self, case: Case | None, pass_: str = "forward-backward") -> Ratio:
        """The time of a case over Full-FT's under the panel's clock."""
        return Ratio("not measured") if case is None else self.results.ratio(case, pass_, self.clock)

    @cached_property
    def ratios(self) -> dict[Case, Ratio]:
        """Forward-backward over Full-FT's, of the cases that have one and are not what it is over."""
        found = {c: self.ratio(c) for c in self.cases}
        return {c: r for c, r in found.items() if r.value and not r.by_definition}

    @property
    def unit(self) -> tuple[str, float]:
        """The unit of times, and how many of it make a ms: one layer takes less than a few ms."""
        return ("us", 1e3) if self.level == "linear" else ("ms", 1.0)

    @property
    def by_wall(self) -> "Panel":
        """Itself; under clock cpu where several threads computed, whose work together is no time that passes."""
        several = any((row.get("threads") or 1) > 1 for row in self.results.folder.rows)
        return replace(self, clock="cpu") if self.clock == "cpu-time" and several else self

    def breakdown(self, case: Case, pass_: str) -> Breakdown:
        """Eager time split into GPU work and launch gap, worked out once."""
        key = case, pass_
        if key not in self._breakdowns:
            self._breakdowns[key] = make_breakdown(self.results, case, pass_)
        return self._breakdowns[key]

    def is_full(self, case: Case) -> bool:
        """Whether the ratios of others are to this case."""
        return self.results.baseline(case) == case

    @cached_property
    def shapes(self) -> list[tuple[int, int]]:
        return sorted({c.size for c in self.cases}, key=lambda s: (s[0] * s[1], s))

    @cached_property
    def subjects(self) -> list[str]:
        return list(dict.fromkeys(c.subject for c in self.cases))

    @cached_property
    def types(self) -> list[str]:
        """Training types, Full-FT first, and last those with an option that any method may have."""
        order = list(methods())

        def place(case: Case) -> tuple[bool, int]:
            return case.has_options, order.index(case.method) if case.method in order else len(order)

        return list(dict.fromkeys(self.labels[c] for c in sorted(self.cases, key=place)))

    @cached_property
    def compared_types(self) -> list[str]:
        """Training types without the one that the ratios are to."""
        full = {self.labels[c] for c in self.cases if self.is_full(c)}
        return [t for t in self.types if t not in full]

    @property
    def baselines(self) -> list[str]:
        """Training types that the ratios are to."""
        found = map(self.results.baseline, self.cases)
        return list(dict.fromkeys(self.labels[b] for b in found if b in self.labels))

    @property
    def compares_implementations(self) -> bool:
        """Single layers, and some method computed in more than one way."""
        kinds = {(c.method, c.impl) for c in self.cases}
        return self.level == "linear" and len(kinds) > len({method for method, _ in kinds})

    def find(self, subject: str, shape: tuple[int, int], type_: str) -> Case | None:
        return self._index.get((subject, shape, type_))

    @property
    def lead(self) -> tuple[str, ...]:
        """Heads of a table with a line for each case; where there is one batch x length, it stands in the caption."""
        one = len(self.shapes) == 1
        return (
            "Layer" if self.level == "linear" else "Model", *([] if one else ["Batch x length"]), "Training type",
        )  # fmt: skip

    def where(self, case: Case) -> tuple[str, ...]:
        """The cells of a case below `lead`."""
        return (case.subject, *([shape_word(case.size)] if len(self.lead) == 3 else []), self.labels[case])

    @cached_property
    def in_order(self) -> list[Case]:
        """The cases by subject, batch x length and training type."""
        found = [self.find(m, s, t) for m in self.subjects for s in self.shapes for t in self.types]
        return [case for case in found if case is not None]

    @cached_property
    def _index(self) -> dict[tuple[str, tuple[int, int], str], Case]:
        return {(c.subject, c.size, self.labels[c]): c for c in self.cases}


def make_panels(results: Results) -> list[Panel]:
    """The cases of a folder, parted into what may stand in one table. The headline clock's come first."""
    found = []
    for clock in (results.clocks or ["none"]) if results.cases else []:
        groups: dict[tuple[str, str | None, str | None], list[Case]] = {}
        for case in results.cases:
            if case in results.failures or results.has(case, clock):
                groups.setdefault((case.level, case.precision, case.l2), []).append(case)
        for (level, precision, l2), all_cases in groups.items():
            cases = _expressible(results, all_cases)
            found.append(Panel(results, level, precision, l2, clock, tuple(cases), labels(cases)))
    return found


def _expressible(results: Results, cases: list[Case]) -> list[Case]:
    """Without the training types of which every case is unsupported here: they are listed below the tables."""

    def unsupported(case: Case) -> bool:
        return case in results.failures and results.failures[case].status == "unsupported"

    kept = {(c.method, c.impl) for c in cases if not unsupported(c)}
    return [c for c in cases if (c.method, c.impl) in kept] or cases


def by_clock(panels: list[Panel]) -> list[list[Panel]]:
    """The panels of the same level, precision and L2 state, one for each clock, the headline clock's first."""
    groups: dict[tuple[str, str | None, str | None], list[Panel]] = {}
    for panel in panels:
        groups.setdefault((panel.level, panel.precision, panel.l2), []).append(panel)
    return list(groups.values())
