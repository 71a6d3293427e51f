"""Where a training type overtakes Full-FT: its ratios over batch and length, and where they pass 1."""

from dataclasses import dataclass
from itertools import pairwise
from math import sqrt

from plots.data.panels import Panel
from plots.data.results import Ratio

Corner = tuple[float, float]


@dataclass(frozen=True)
class Edge:
    """Between two neighbouring cells that lie on either side of 1, in columns and rows of the map.

    sure: both cells are decided."""

    start: Corner
    end: Corner
    sure: bool


@dataclass(frozen=True)
class Crossing:
    """What the decided cells say of tokens = batch x length. Counts are of cells, the rest of tokens."""

    slower: int
    faster: int
    undecided: int
    slower_first: bool = True  # slower below, faster above
    between: tuple[int, int] | None = None  # the last tokens on one side and the first on the other

    @property
    def tokens(self) -> float | None:
        """The middle of `between` in log space."""
        return sqrt(self.between[0] * self.between[1]) if self.between else None


@dataclass(frozen=True, eq=False)
class Map:
    """Forward-backward over Full-FT's of one subject and training type."""

    subject: str
    type_: str
    batches: list[int]
    lengths: list[int]
    ratios: list[list[Ratio | None]]  # by batch, then by length; None where there is no such case

    @property
    def edges(self) -> list[Edge]:
        """The line at which the ratio is 1: a step between cells, since nothing was measured between them."""
        found = []
        for i, line in enumerate(self.ratios):
            for j, (here, right) in enumerate(pairwise(line)):
                found += _edge(here, right, (j + 0.5, i - 0.5), (j + 0.5, i + 0.5))
        for i, (line, above) in enumerate(pairwise(self.ratios)):
            for j, (here, up) in enumerate(zip(line, above, strict=True)):
                found += _edge(here, up, (j - 0.5, i + 0.5), (j + 0.5, i + 0.5))
        return found

    @property
    def crossing(self) -> Crossing:
        """From decided cells alone: `between` where tokens alone part the slower ones from the faster ones."""
        sides: dict[bool, list[int]] = {True: [], False: []}  # slower -> tokens
        undecided = 0
        for batch, line in zip(self.batches, self.ratios, strict=True):
            for length, ratio in zip(self.lengths, line, strict=True):
                if ratio and ratio.value and ratio.decided:
                    sides[ratio.value.value > 1].append(batch * length)
                elif ratio and ratio.value:
                    undecided += 1
        slower, faster = sides[True], sides[False]
        counts = len(slower), len(faster), undecided
        for slower_first, low, high in ((True, slower, faster), (False, faster, slower)):
            if low and high and max(low) < min(high):
                return Crossing(*counts, slower_first, (max(low), min(high)))
        return Crossing(*counts)


def _edge(a: Ratio | None, b: Ratio | None, start: Corner, end: Corner) -> list[Edge]:
    if not (a and b and a.value and b.value) or (a.value.value > 1) == (b.value.value > 1):
        return []
    return [Edge(start, end, a.decided and b.decided)]


def crossover_maps(panel: Panel) -> dict[tuple[str, str], Map]:
    """By subject and training type; empty without two batches and two lengths, or without Full-FT."""
    batches, lengths = sorted({s[0] for s in panel.shapes}), sorted({s[1] for s in panel.shapes})
    if panel.level == "linear" or len(batches) < 2 or len(lengths) < 2 or not panel.baselines:
        return {}
    found = {}
    for subject in panel.subjects:
        for type_ in panel.compared_types:
            cases = [[panel.find(subject, (b, s), type_) for s in lengths] for b in batches]
            # Lengths that a model cannot take belong to other models' cells.
            there = [j for j in range(len(lengths)) if any(line[j] for line in cases)]
            ratios = [[panel.ratio(case) if (case := line[j]) else None for j in there] for line in cases]
            if there:
                found[subject, type_] = Map(subject, type_, batches, [lengths[j] for j in there], ratios)
    return found
