"""Eager time broken down into GPU work and launch gap, and so the difference to Full-FT."""

from dataclasses import dataclass

from bench.case import Case
from bench.case.clocks import CLOCKS
from bench.record.stats import Estimate, Measured
from plots.data.results import Cell, Results

GPU_CLOCKS = tuple(name for name, clock in CLOCKS.items() if clock.gpu_work)  # GPU work is of the first with a time


@dataclass(frozen=True)
class Difference:
    """Time beyond Full-FT's at equal axes, in ms: eager = gpu + gap. A word stands in its place where there is none."""

    word: str = ""
    clock: str = ""  # of the GPU work, on both sides
    eager: Estimate | None = None
    gpu: Estimate | None = None
    gap: Estimate | None = None
    noisy: bool = False


@dataclass(frozen=True)
class Breakdown:
    """The times of one case x pass under each clock; launch gap = eager - GPU work, in ms and in percent of eager."""

    case: Case
    pass_: str
    eager: Cell
    gpu: Cell  # graph, or device where graph has no time
    word: str = ""  # in place of the gap
    gap: Estimate | None = None
    share: Estimate | None = None
    beyond: Difference = Difference("no Full-FT")

    @property
    def noisy(self) -> bool:
        return self.eager.noisy or self.gpu.noisy

    @property
    def below_zero(self) -> bool:
        """The gap is negative beyond its interval: the two clocks did not see the same work or the same GPU."""
        return self.gap is not None and self.gap.high is not None and self.gap.high < 0


def has_both(results: Results, case: Case) -> bool:
    """Whether a case was measured under eager and under a GPU clock."""
    return results.has(case, "eager") and any(results.has(case, clock) for clock in GPU_CLOCKS)


def make_breakdown(results: Results, case: Case, pass_: str) -> Breakdown:
    """Breaks down the eager time of a case x pass, with words in place of what was not measured."""
    clock = _gpu_clock(results, pass_, [case])
    tried = next((c for c in GPU_CLOCKS if (case, pass_, c) in results.cells), GPU_CLOCKS[0])
    eager, gpu = _alike(results, pass_, [(case, "eager"), (case, clock or tried)])
    if eager.measured is None or gpu.measured is None:
        word = eager.status if eager.measured is None else gpu.status
        return Breakdown(case, pass_, eager, gpu, word, beyond=Difference(word))
    gap = eager.measured - gpu.measured
    share = gap / eager.measured if eager.measured.value else Measured(0.0)
    beyond = _beyond_full(results, case, pass_)
    return Breakdown(case, pass_, eager, gpu, "", gap.estimate, share.estimate.times(100), beyond)


def _beyond_full(results: Results, case: Case, pass_: str) -> Difference:
    """How much more than Full-FT a case takes, with the same clock for the GPU work of both."""
    base = results.baseline(case)
    if base is None:
        return Difference("no Full-FT")
    if base == case:
        return Difference("0")
    clock = _gpu_clock(results, pass_, [case, base])
    if clock is None:
        without = make_breakdown(results, base, pass_)
        return Difference(f"Full-FT {without.word}" if without.word else "no common clock")
    cells = _alike(results, pass_, [(case, "eager"), (case, clock), (base, "eager"), (base, clock)])
    if bad := [cell for cell in cells if cell.measured is None]:
        return Difference(f"Full-FT {bad[0].status}" if bad[0].case == base else bad[0].status)
    eager, gpu, base_eager, base_gpu = (cell.measured for cell in cells if cell.measured)
    more, work = eager - base_eager, gpu - base_gpu
    noisy = any(cell.noisy for cell in cells)
    return Difference("", clock, more.estimate, work.estimate, (more - work).estimate, noisy)


def _alike(results: Results, pass_: str, wanted: list[tuple[Case, str]]) -> list[Cell]:
    """The cells, all of them measured as a whole or all of them added up."""
    found = [results.get(case, pass_, clock) for case, clock in wanted]
    if len({cell.source for cell in found if cell.time}) > 1:
        return [results.summed(case, clock) for case, clock in wanted]
    return found


def _gpu_clock(results: Results, pass_: str, cases: list[Case]) -> str | None:
    """The clock that has the GPU work of all of the cases."""
    timed = [clock for clock in GPU_CLOCKS if all(results.get(case, pass_, clock).time for case in cases)]
    return timed[0] if timed else None
