"""What may stand in one table, and what a table is."""

from dataclasses import dataclass
from functools import cached_property

from plots.data.case import METHODS, Case
from plots.data.load import Folder
from plots.data.results import Book
from plots.text.captions import labels, place, shape_word

MAX_TYPES = 8  # training types side by side in a table or a figure of layers
MAX_WIDE = 3  # shapes that stand side by side, as in the paper; with more of them each gets a line of its own


@dataclass(frozen=True)
class Table:
    """A table with grouped columns: each group has the same number of cells in every line."""

    title: str
    caption: str
    lead: tuple[str, ...]
    groups: tuple[tuple[str, tuple[str, ...]], ...]  # name, sub-columns
    lines: tuple[tuple[tuple[str, ...], tuple[tuple[str, ...], ...]], ...]  # lead cells, groups of cells


@dataclass(frozen=True)
class Panel:
    """Cases that one table may hold: one level, precision and L2 state, under one clock."""

    level: str
    precision: str | None
    l2: str | None
    clock: str
    cases: tuple[Case, ...]
    labels: dict[Case, str]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        return sorted({c.shape for c in self.cases}, key=lambda s: (s[0] * s[1], s))

    @property
    def subjects(self) -> list[str]:
        return list(dict.fromkeys(c.subject for c in self.cases))

    @property
    def types(self) -> list[str]:
        """Training types, Full-FT first."""
        order = list(METHODS)
        by_method = sorted(self.cases, key=lambda c: order.index(c.method) if c.method in order else len(order))
        return list(dict.fromkeys(self.labels[c] for c in by_method))

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
        return (case.subject, *([shape_word(case.shape)] if len(self.lead) == 3 else []), self.labels[case])

    @property
    def in_order(self) -> list[Case]:
        """The cases by subject, batch x length and training type."""
        found = [self.find(m, s, t) for m in self.subjects for s in self.shapes for t in self.types]
        return [case for case in found if case is not None]

    @cached_property
    def _index(self) -> dict[tuple[str, tuple[int, int], str], Case]:
        return {(c.subject, c.shape, self.labels[c]): c for c in self.cases}


def panels(book: Book) -> list[Panel]:
    """The cases of a folder, parted into what may stand in one table. The headline clock's come first."""
    found = []
    for clock in book.clocks or ["none"]:
        groups: dict[tuple[str, str | None, str | None], list[Case]] = {}
        for case in book.cases:
            if case in book.failures or book.has(case, clock):
                groups.setdefault((case.level, case.precision, case.l2), []).append(case)
        for (level, precision, l2), all_cases in groups.items():
            cases = _expressible(book, all_cases)
            found.append(Panel(level, precision, l2, clock, tuple(cases), labels(cases)))
    return found


def _expressible(book: Book, cases: list[Case]) -> list[Case]:
    """Without the training types of which every case is unsupported here: they are listed below the tables."""

    def unsupported(case: Case) -> bool:
        return case in book.failures and book.failures[case].status == "unsupported"

    kept = {(c.method, c.impl) for c in cases if not unsupported(c)}
    return [c for c in cases if (c.method, c.impl) in kept] or cases


def title(folder: Folder, what: str, panel: Panel, clocks: bool = True) -> str:
    """'Forward and backward time: whole models on NVIDIA H100, bf16, clock eager'."""
    precision = f", {panel.precision}" if panel.precision else ""
    return f"{what}: {place(folder, panel.level)}{precision}" + (f", clock {panel.clock}" if clocks else "")
