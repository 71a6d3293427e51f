"""Rows and samples become results: the time of one case x pass x clock, over all of its processes."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from bench.case import Case, read_case
from bench.case.clocks import CLOCKS, between_starts
from bench.case.schema import PASSES
from bench.record.ratios import baselines, ratio_of
from bench.record.stats import RATIO_NOISY, RATIO_TELLS, Estimate, Measured, Repeat, generator, measured
from plots.data.load import Folder, Line, row_key, text
from plots.data.training_runs import EXAMPLES

MICRO_PASSES = tuple(p for p in PASSES if p != "step")  # all but the optimizer step

Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """The time of one case x pass x clock in ms, or the status that stands in its place."""

    case: Case
    pass_: str
    clock: str
    status: str
    detail: str = ""
    time: Estimate | None = None
    measured: Measured | None = None  # the same time, for what is made of it; there where `time` is
    n: int = 0
    noisy: bool = False
    energy_j: float | None = None  # of one call
    refresh_ms: float | None = None
    optimizer_ms: float | None = None  # of a step: the optimizer alone
    parts_ms: float | None = None  # of a step: its parts, timed apart and added up
    repeats: tuple[Repeat, ...] = ()  # that the time was measured in; none of a sum
    source: str = "measured"  # or 'forward + backward' for a sum that was not measured as one


@dataclass(frozen=True)
class Work:
    """What a case x pass has to do, whichever clock timed it. None where it is not on record."""

    launches: float | None = None  # nodes of the CUDA graph
    flops: float | None = None
    bytes: float | None = None
    floor_ms: float | None = None  # roofline time

    def __add__(self, other: "Work") -> "Work":
        """Of two passes run one after the other."""
        pairs = [(getattr(self, name), getattr(other, name)) for name in WORK]
        return Work(*(None if a is None or b is None else a + b for a, b in pairs))


WORK = tuple(Work.__dataclass_fields__)


@dataclass(frozen=True)
class Ratio:
    """Time over another's at equal axes, mostly Full-FT's, or the word that stands in its place."""

    word: str = ""
    value: Estimate | None = None
    measured: Measured | None = None  # None of a baseline over itself, which is 1 by definition

    @property
    def noisy(self) -> bool:
        """Whether its own interval is too wide, however wide those of the two times are."""
        return self.value is not None and not self.value.within(RATIO_NOISY)

    @property
    def tells(self) -> bool:
        """Whether it may stand as a result."""
        return self.value is not None and self.value.within(RATIO_TELLS)

    @property
    def decided(self) -> bool:
        """Whether it says which of the two is faster: it tells, and its interval leaves out 1."""
        found = self.value
        return self.tells and found is not None and not (found.low or 0.0) <= 1 <= (found.high or 0.0)

    @property
    def by_definition(self) -> bool:
        return self.value is not None and self.measured is None

    @property
    def scope(self) -> str:
        """What the interval speaks for."""
        if self.by_definition:
            return "by definition"
        return self.measured.scope if self.measured else ""


@dataclass(frozen=True, eq=False)
class Results:
    """What a folder holds, to be looked up by case, pass and clock."""

    folder: Folder
    cells: dict[tuple[Case, str, str], Cell]
    failures: dict[Case, Cell]  # cases of which nothing could be timed
    work: dict[tuple[Case, str], Work] = field(default_factory=dict)
    peaks_mib: dict[Case, float] = field(default_factory=dict)  # the largest of any row
    price: float | None = None  # of an hour on the device, as asked for
    examples: int = EXAMPLES  # sequences in an epoch, as asked for
    conditions: dict[str, tuple[str, ...]] = field(default_factory=dict)  # sentences in captions, and their parts

    @cached_property
    def cases(self) -> list[Case]:
        """In the order in which they were first recorded."""
        return list(dict.fromkeys([*(key[0] for key in self.cells), *self.failures]))

    @cached_property
    def clocks(self) -> list[str]:
        """Headline first."""
        found = {cell.clock for cell in self.cells.values() if cell.clock}
        order = list(CLOCKS)
        return sorted(found, key=lambda c: (order.index(c) if c in CLOCKS else len(order), c))

    @property
    def shown_clocks(self) -> list[str]:
        """Without wall time where CPU time of the same samples stands for it."""
        return [c for c in self.clocks if c != "cpu" or "cpu-time" not in self.clocks]

    def get(self, case: Case, pass_: str, clock: str) -> Cell:
        """The cell; a sum that was not measured as one is put together; 'not measured' where there is nothing."""
        found = self.cells.get((case, pass_, clock))
        if found is None and case in self.failures:
            return replace(self.failures[case], pass_=pass_, clock=clock)
        if found is None and pass_ == "forward-backward":
            return self.summed(case, clock)
        return found or Cell(case, pass_, clock, "not measured")

    def summed(self, case: Case, clock: str) -> Cell:
        """Forward-backward put together from its parts."""
        return _sum(self.get(case, "forward", clock), self.get(case, "backward", clock))

    def has(self, case: Case, clock: str) -> bool:
        """Whether anything is on record for a case under a clock."""
        return any((case, pass_, clock) in self.cells for pass_ in PASSES)

    def get_work(self, case: Case, pass_: str) -> Work:
        """The work of a case x pass; that of a sum that is not on record is put together."""
        found = self.work.get((case, pass_), Work())
        if pass_ != "forward-backward":
            return found
        both = self.get_work(case, "forward") + self.get_work(case, "backward")
        pairs = [(getattr(found, name), getattr(both, name)) for name in WORK]
        return Work(*(b if a is None else a for a, b in pairs))

    @cached_property
    def _full(self) -> dict[tuple[object, ...], Case]:
        return baselines(self.cases)

    def baseline(self, case: Case) -> Case | None:
        """Full-FT at the same level, model, size and all other axes that a ratio must share."""
        return self._full.get(case.comparison)

    @cached_property
    def _alike(self) -> dict[tuple[object, ...], list[Case]]:
        found: dict[tuple[object, ...], list[Case]] = {}
        for case in self.cases:
            found.setdefault(case.comparison, []).append(case)
        return found

    def alike(self, case: Case) -> list[Case]:
        """The cases at the same axes as `baseline` compares: they differ in method, impl and what a method sets."""
        return self._alike.get(case.comparison, [])

    @cached_property
    def _beside(self) -> dict[tuple[object, ...], list[Case]]:
        found: dict[tuple[object, ...], list[Case]] = {}
        for case in self.cases:
            found.setdefault(case.alike, []).append(case)
        return found

    def beside(self, case: Case) -> list[Case]:
        """The cases of one measurement: they differ in how they train alone, other layers among it."""
        return self._beside.get(case.alike, [])

    def ratio(self, case: Case, pass_: str, clock: str) -> Ratio:
        """Time of the case over Full-FT's in the same pass and clock."""
        return self.over(case, self.baseline(case), "Full-FT", pass_, clock)

    def over(self, case: Case, base: Case | None, name: str, pass_: str, clock: str) -> Ratio:
        """Time of the case over that of `base` in the same pass and clock; `name` says what base is."""
        cell = self.get(case, pass_, clock)
        if cell.time is None:
            return Ratio(cell.status)
        if base is None:
            return Ratio(f"no {name}")
        below = self.get(base, pass_, clock)
        if below.source != cell.source:  # one of the two was measured as a whole: put both together from their parts
            cell, below = self.summed(case, clock), self.summed(base, clock)
        if below.measured is None or cell.measured is None:
            return Ratio(f"{name} {below.status}" if below.measured is None else cell.status)
        if base == case:
            return Ratio(value=Estimate(1.0, 1.0, 1.0))
        quotient = cell.measured / below.measured
        ratio, value = ratio_of(cell.repeats, below.repeats, quotient, pass_, clock)
        return Ratio("", value, ratio)


def _sum(forward: Cell, backward: Cell) -> Cell:
    """Forward + backward of one case."""
    if forward.measured is None or backward.measured is None:
        bad = forward if forward.measured is None else backward
        return replace(bad, pass_="forward-backward", source="forward + backward")
    both = forward.measured + backward.measured
    return replace(
        forward, pass_="forward-backward", time=both.estimate, measured=both, n=min(forward.n, backward.n),
        noisy=forward.noisy or backward.noisy, repeats=(), source="forward + backward",
    )  # fmt: skip


def read_results(folder: Folder, price: float | None = None, examples: int = EXAMPLES) -> Results:
    """Groups the rows of a folder into cells. price: of an hour on the device; examples: sequences in an epoch."""
    grouped: dict[tuple[Case, str, str], list[Row]] = {}
    for row in folder.rows:
        key = (read_case(row), text(row.get("pass")) or "", text(row.get("clock")) or "")
        grouped.setdefault(key, []).append(row)
    cells = {key: _cell(folder, *key, rows) for key, rows in grouped.items()}
    timed = {key[0] for key, cell in cells.items() if cell.time is not None}
    failures: dict[Case, Cell] = {}
    for (case, _, _), cell in cells.items():
        if cell.time is None and case not in timed:
            failures[case] = cell  # a case that failed as a whole may have one row, without a pass
    passes = {key: cell for key, cell in cells.items() if key[1] and key[2]}
    return Results(folder, passes, failures, *_work(grouped), price, examples)


def _cell(folder: Folder, case: Case, pass_: str, clock: str, rows: list[Row]) -> Cell:
    """One cell from the rows of its repeats. The cell is ok where at least one repeat is."""
    good = [row for row in rows if row.get("status", "ok") == "ok" and row.get("median_ms") is not None]
    if len({text(row.get("tuned")) for row in good}) > 1:  # repeats under earlier tuned tiles are another kernel's
        latest = max(good, key=lambda row: text(row.get("measured_at")) or "")
        good = [row for row in good if text(row.get("tuned")) == text(latest.get("tuned"))]
    if not good:
        status = text(rows[-1].get("status")) or "error"
        status = "error" if status == "ok" else status  # ok without a time is no time
        return Cell(case, pass_, clock, status, text(rows[-1].get("detail")) or "")
    repeats = [_repeat(folder, row) for row in good]
    # Seeded as the terminal seeds it, so that both state the same interval of a ratio.
    found, time = measured(repeats, generator(text(good[0].get("case_id")), pass_, clock))
    energy, refresh, optimizer, parts = (
        _middle(good, name) for name in ("energy_j", "refresh_ms", "optimizer_ms", "parts_ms")
    )
    return Cell(
        case, pass_, clock, "ok", "", time, found, sum(row.get("n") or 0 for row in good),
        any(row.get("noisy") for row in good), energy, refresh, optimizer, parts,
        tuple(repeats),
    )  # fmt: skip


def _repeat(folder: Folder, row: Row) -> Repeat:
    median, low, high = (row.get(name) for name in ("median_ms", "ci_low_ms", "ci_high_ms"))
    process = text(row.get("process")) or text(row.get("repeat")) or ""
    line = folder.lines.get(row_key(row), Line(()))
    turns = f"{text(row.get('run_id')) or ''} {line.turns}" if line.turns else ""  # samples of one run alone are paired
    return Repeat(
        median or 0.0, low, high, line.samples_ms, process, text(row.get("case_id")) or "", line.rounds, turns,
        line.ratio_to or text(row.get("ratio_to")) or "", _ratio(row), line.ratios,
        between_starts(text(row.get("clock")) or ""),
    )  # fmt: skip


def _ratio(row: Row) -> Estimate | None:
    """The ratio of a row, with its interval where both ends are known; None where it has no ratio."""
    value, low, high = (row.get(name) for name in ("ratio", "ratio_low", "ratio_high"))
    if not value:
        return None
    return Estimate(value) if low is None or high is None else Estimate(value, low, high)


def _middle(rows: list[Row], name: str) -> float | None:
    """The median of a column over repeats, of those that have it."""
    known = [value for row in rows if (value := row.get(name)) is not None]
    return float(np.median(known)) if known else None


def _work(grouped: dict[tuple[Case, str, str], list[Row]]) -> tuple[dict[tuple[Case, str], Work], dict[Case, float]]:
    """Work by case and pass, the graph's first, which counted launches; and peak memory by case."""
    values: dict[tuple[Case, str], dict[str, float]] = {}
    peaks: dict[Case, float] = {}
    for (case, pass_, _), rows in sorted(grouped.items(), key=lambda item: item[0][2] != "graph"):
        known = values.setdefault((case, pass_), {})
        for row in rows:
            for name in WORK:
                if (value := row.get(name)) is not None:
                    known.setdefault(name, float(value))
            if (mib := row.get("peak_mib")) is not None:
                peaks[case] = max(peaks.get(case, 0.0), mib)
    return {key: Work(**known) for key, known in values.items() if known}, peaks
