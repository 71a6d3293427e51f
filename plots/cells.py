"""Rows and samples become cells: one case x pass x clock, over all of its processes."""

import zlib
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from plots.load import Folder, flag, number, row_key, text
from plots.stats import (
    MIN_PROCESSES,
    Array,
    Estimate,
    draws_from_interval,
    interval,
    median_draws,
    process_draws,
)

CLOCKS = ("eager", "cpu", "graph", "device", "host")  # the first of these that a folder has is its headline
METHODS = {"full": "Full-FT", "lora": "LoRA", "paca": "PaCA"}
PASSES = ("forward", "backward", "forward-backward", "step")
OWN_AXES = ("trainable_layers", "rank", "alpha", "dropout", "targets", "adapter_dtype")  # what a method sets for itself


@dataclass(frozen=True)
class Case:
    """The axes of a case as text; None where an axis does not apply."""

    level: str
    model: str | None
    layer: str | None
    method: str
    impl: str
    trainable_layers: str | None
    rank: str | None
    alpha: str | None
    dropout: str | None
    targets: str | None
    adapter_dtype: str | None
    precision: str | None
    batch: int
    seq: int
    l2: str | None

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.__dataclass_fields__))

    def __hash__(self) -> int:
        """Worked out once: cases are the keys of every look-up."""
        return self._hash

    @property
    def tokens(self) -> int:
        return self.batch * self.seq

    @property
    def shape(self) -> tuple[int, int]:
        """(batch, length)."""
        return self.batch, self.seq

    @property
    def subject(self) -> str:
        """What is run: the model, and at level linear its layer."""
        return " ".join(part for part in (self.model, self.layer) if part) or "unnamed"


@dataclass(frozen=True)
class Cell:
    """The time of one case x pass x clock in ms, or the status that stands in its place."""

    case: Case
    pass_: str
    clock: str
    status: str
    detail: str = ""
    time: Estimate | None = None
    draws: Array | None = field(default=None, repr=False, compare=False)
    n: int = 0
    processes: int = 0
    noisy: bool = False
    refresh_ms: float | None = None
    source: str = "measured"  # or 'forward + backward' for a sum that was not measured as one

    @property
    def scope(self) -> str:
        """What the interval speaks for."""
        return f"across {self.processes} processes" if self.processes >= MIN_PROCESSES else "within process"


@dataclass(frozen=True)
class Ratio:
    """Time over Full-FT's at equal axes, or the word that stands in its place."""

    word: str = ""
    value: Estimate | None = None
    scope: str = ""
    noisy: bool = False


def read_case(row: dict[str, Any]) -> Case:
    """The axes of a row."""
    words = {name: text(row.get(name)) for name in Case.__dataclass_fields__ if name not in ("batch", "seq")}
    for name in ("level", "method", "impl"):
        words[name] = words[name] or "unknown"
    batch, seq = (int(number(row.get(name)) or 0) for name in ("batch", "seq"))
    return Case(batch=batch, seq=seq, **words)  # type: ignore[arg-type]


def _cell(folder: Folder, case: Case, rows: list[dict[str, Any]]) -> Cell:
    """One cell from the rows of its repeats. The cell is ok where at least one repeat is."""
    pass_, clock = text(rows[0].get("pass")) or "", text(rows[0].get("clock")) or ""
    good = [row for row in rows if row.get("status", "ok") == "ok" and number(row.get("median_ms")) is not None]
    if not good:
        status = text(rows[-1].get("status")) or "error"
        status = "error" if status == "ok" else status  # ok without a time is no time
        return Cell(case, pass_, clock, status, text(rows[-1].get("detail")) or "")
    rng = np.random.default_rng(zlib.crc32(repr((case, pass_, clock)).encode()))  # a redraw gives the same digits
    medians = [number(row.get("median_ms")) or 0.0 for row in good]
    processes = len({text(row.get("process")) or text(row.get("repeat")) or "" for row in good})
    drawn = [_draws(folder, row, rng) for row in good]
    value = float(np.median(medians))
    if processes >= MIN_PROCESSES:
        draws: Array | None = process_draws(medians, rng)
    else:
        known = [d for d in drawn if d is not None]
        draws = np.median(np.stack(known), axis=0) if len(known) == len(good) else None
    low, high = number(good[0].get("ci_low_ms")), number(good[0].get("ci_high_ms"))
    alone = len(good) == 1 and draws is not None and low is not None and high is not None
    time = Estimate(value, low, high) if alone else interval(value, draws)
    refreshes = [r for r in (number(row.get("refresh_ms")) for row in good) if r is not None]
    return Cell(
        case, pass_, clock, "ok", "", time, draws, sum(int(number(row.get("n")) or 0) for row in good), processes,
        any(flag(row.get("noisy")) for row in good), float(np.median(refreshes)) if refreshes else None,
    )  # fmt: skip


def _draws(folder: Folder, row: dict[str, Any], rng: np.random.Generator) -> Array | None:
    """Draws of a row's median: from its samples where they are there, else from its interval."""
    samples = folder.samples_ms.get(row_key(row))
    if samples:
        return median_draws(samples, rng)
    value, low, high = (number(row.get(name)) for name in ("median_ms", "ci_low_ms", "ci_high_ms"))
    if value is None or low is None or high is None:
        return None
    return draws_from_interval(value, low, high, rng)


@dataclass(frozen=True)
class Book:
    """All cells of a folder, to be looked up by case, pass and clock."""

    cells: dict[tuple[Case, str, str], Cell]
    failures: dict[Case, Cell]  # cases of which nothing could be timed

    @cached_property
    def cases(self) -> list[Case]:
        """In the order in which they were first recorded."""
        return list(dict.fromkeys([*(key[0] for key in self.cells), *self.failures]))

    @cached_property
    def clocks(self) -> list[str]:
        """Headline first."""
        found = {cell.clock for cell in self.cells.values() if cell.clock}
        return sorted(found, key=lambda c: (CLOCKS.index(c) if c in CLOCKS else len(CLOCKS), c))

    def get(self, case: Case, pass_: str, clock: str) -> Cell:
        """The cell; a sum that was not measured as one is put together; 'not measured' where there is nothing."""
        found = self.cells.get((case, pass_, clock))
        if found is None and case in self.failures:
            return replace(self.failures[case], pass_=pass_, clock=clock)
        if found is None and pass_ == "forward-backward":
            return _sum(self.get(case, "forward", clock), self.get(case, "backward", clock))
        return found or Cell(case, pass_, clock, "not measured")

    @cached_property
    def _full(self) -> dict[tuple[object, ...], Case]:
        full = [c for c in self.cases if c.method == "full"]
        # eager last: where several implementations of Full-FT were measured, that one is the yardstick.
        return {_equal_axes(c): c for c in sorted(full, key=lambda c: c.impl == "eager")}

    def baseline(self, case: Case) -> Case | None:
        """Full-FT at the same level, model, layer, trainable layers, precision, batch, length and L2 state."""
        return self._full.get(_equal_axes(case))

    def ratio(self, case: Case, pass_: str, clock: str) -> Ratio:
        """Time of the case over Full-FT's in the same pass and clock."""
        cell, base = self.get(case, pass_, clock), self.baseline(case)
        if cell.time is None:
            return Ratio(cell.status)
        if base is None:
            return Ratio("no Full-FT")
        below = self.get(base, pass_, clock)
        if below.source != cell.source:  # one of the two was measured as a whole: put both together from their parts
            parts = [[self.get(c, p, clock) for p in ("forward", "backward")] for c in (case, base)]
            cell, below = (_sum(*pair) for pair in parts)
        if below.time is None or cell.time is None:
            return Ratio(f"Full-FT {below.status}" if below.time is None else cell.status)
        if base == case:
            return Ratio(value=Estimate(1.0, 1.0, 1.0), scope="by definition")
        value = cell.time.value / below.time.value
        draws = None if cell.draws is None or below.draws is None else cell.draws / below.draws
        fewest = min(cell.processes, below.processes)
        scope = f"across {fewest} processes" if fewest >= MIN_PROCESSES else "within process"
        return Ratio("", interval(value, draws), scope, cell.noisy or below.noisy)


def _equal_axes(case: Case) -> tuple[object, ...]:
    return (
        case.level, case.model, case.layer, case.trainable_layers or "all", case.precision, case.batch, case.seq,
        case.l2,
    )  # fmt: skip


def _sum(forward: Cell, backward: Cell) -> Cell:
    """Forward + backward of one case."""
    if forward.time is None or backward.time is None:
        bad = forward if forward.time is None else backward
        return replace(bad, pass_="forward-backward", source="forward + backward")
    both = None if forward.draws is None or backward.draws is None else forward.draws + backward.draws
    return replace(
        forward, pass_="forward-backward", time=interval(forward.time.value + backward.time.value, both), draws=both,
        n=min(forward.n, backward.n), noisy=forward.noisy or backward.noisy, source="forward + backward",
    )  # fmt: skip


def make_book(folder: Folder) -> Book:
    """Groups the rows of a folder into cells."""
    grouped: dict[tuple[Case, str, str], list[dict[str, Any]]] = {}
    for row in folder.rows:
        key = (read_case(row), text(row.get("pass")) or "", text(row.get("clock")) or "")
        grouped.setdefault(key, []).append(row)
    cells = {key: _cell(folder, key[0], rows) for key, rows in grouped.items()}
    timed = {key[0] for key, cell in cells.items() if cell.time is not None}
    failures: dict[Case, Cell] = {}
    for (case, _, _), cell in cells.items():
        if cell.time is None and case not in timed:
            failures[case] = cell  # a case that failed as a whole may have one row, without a pass
    return Book({key: cell for key, cell in cells.items() if key[1] and key[2]}, failures)
