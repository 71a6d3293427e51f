"""Eager time split into GPU work and launch gap, and so the difference to Full-FT."""

from dataclasses import dataclass

from plots.data.case import Case
from plots.data.length_fit import Array, Estimate, interval
from plots.data.results import Book, Cell

GPU_CLOCKS = ("graph", "device")  # GPU work is the first of these that has a time


@dataclass(frozen=True)
class Drawn:
    """A value and the draws of where its truth lies; draws are None where the samples carry no interval."""

    value: float
    draws: Array | None

    def __sub__(self, other: "Drawn") -> "Drawn":
        known = self.draws is not None and other.draws is not None
        return Drawn(self.value - other.value, self.draws - other.draws if known else None)  # type: ignore[operator]

    def __truediv__(self, other: "Drawn") -> "Drawn":
        known = self.draws is not None and other.draws is not None
        return Drawn(self.value / other.value, self.draws / other.draws if known else None)  # type: ignore[operator]

    @property
    def estimate(self) -> Estimate:
        return interval(self.value, self.draws)


@dataclass(frozen=True)
class Extra:
    """Time beyond Full-FT's at equal axes, in ms: eager = gpu + gap. A word stands in its place where there is none."""

    word: str = ""
    clock: str = ""  # of the GPU work, on both sides
    eager: Estimate | None = None
    gpu: Estimate | None = None
    gap: Estimate | None = None
    noisy: bool = False


@dataclass(frozen=True)
class Split:
    """The times of one case x pass under each clock; launch gap = eager - GPU work, in ms and in percent of eager."""

    case: Case
    pass_: str
    eager: Cell
    gpu: Cell  # graph, or device where graph has no time
    word: str = ""  # in place of the gap
    gap: Estimate | None = None
    share: Estimate | None = None
    extra: Extra = Extra("no Full-FT")

    @property
    def noisy(self) -> bool:
        return self.eager.noisy or self.gpu.noisy

    @property
    def below_zero(self) -> bool:
        """The gap is negative beyond its interval: the two clocks did not see the same work or the same GPU."""
        return self.gap is not None and self.gap.high is not None and self.gap.high < 0


def _alike(book: Book, pass_: str, wanted: list[tuple[Case, str]]) -> list[Cell]:
    """The cells, all of them measured as a whole or all of them added up."""
    found = [book.get(case, pass_, clock) for case, clock in wanted]
    if len({cell.source for cell in found if cell.time}) > 1:
        return [book.summed(case, clock) for case, clock in wanted]
    return found


def _gpu_clock(book: Book, pass_: str, cases: list[Case]) -> str | None:
    """The clock that has the GPU work of all of the cases."""
    timed = [clock for clock in GPU_CLOCKS if all(book.get(case, pass_, clock).time for case in cases)]
    return timed[0] if timed else None


def make_split(book: Book, case: Case, pass_: str) -> Split:
    """Splits the eager time of a case x pass, with words in place of what was not measured."""
    clock = _gpu_clock(book, pass_, [case])
    tried = next((c for c in GPU_CLOCKS if (case, pass_, c) in book.cells), GPU_CLOCKS[0])
    eager, gpu = _alike(book, pass_, [(case, "eager"), (case, clock or tried)])
    if eager.time is None or gpu.time is None:
        word = eager.status if eager.time is None else gpu.status
        return Split(case, pass_, eager, gpu, word, extra=Extra(word))
    gap = _drawn(eager) - _drawn(gpu)
    share = gap / _drawn(eager) if eager.time.value else Drawn(0.0, None)
    return Split(case, pass_, eager, gpu, "", gap.estimate, share.estimate.times(100), _extra(book, case, pass_))


def _drawn(cell: Cell) -> Drawn:
    assert cell.time is not None, "asked for a time that is there"
    return Drawn(cell.time.value, cell.draws)


def _extra(book: Book, case: Case, pass_: str) -> Extra:
    """How much more than Full-FT a case takes, with the same clock for the GPU work of both."""
    base = book.baseline(case)
    if base is None:
        return Extra("no Full-FT")
    if base == case:
        return Extra("0")
    clock = _gpu_clock(book, pass_, [case, base])
    if clock is None:
        without = make_split(book, base, pass_)
        return Extra(f"Full-FT {without.word}" if without.word else "no common clock")
    eager, gpu, base_eager, base_gpu = cells = _alike(
        book, pass_, [(case, "eager"), (case, clock), (base, "eager"), (base, clock)]
    )
    if bad := [cell for cell in cells if cell.time is None]:
        return Extra(f"Full-FT {bad[0].status}" if bad[0].case == base else bad[0].status)
    more, work = _drawn(eager) - _drawn(base_eager), _drawn(gpu) - _drawn(base_gpu)
    return Extra("", clock, more.estimate, work.estimate, (more - work).estimate, any(cell.noisy for cell in cells))


def has_both(book: Book, case: Case) -> bool:
    """Whether a case was measured under eager and under a GPU clock."""
    return book.has(case, "eager") and any(book.has(case, clock) for clock in GPU_CLOCKS)


def make_splits(book: Book) -> dict[tuple[Case, str], Split]:
    """A split for each case x pass of a case that has both eager rows and rows of a GPU clock, or failed as a whole."""
    found = {}
    for case in book.cases:
        if case in book.failures or has_both(book, case):
            steps = ("step",) if any((case, "step", c) in book.cells for c in GPU_CLOCKS) else ()
            for pass_ in ("forward", "backward", "forward-backward", *steps):
                found[case, pass_] = make_split(book, case, pass_)
    return found
