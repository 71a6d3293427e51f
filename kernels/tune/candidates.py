"""What can be timed for a case, strongest first, from what the tables and schemes allow."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain

from ..runtime.dispatch import Case, allows, choose_backward, choose_forward, choose_tile, serves, tiles_of
from ..runtime.schemes import BACKWARD_SCHEMES, FORWARD_SCHEMES, TILED
from ..runtime.tile_tables import Tile
from ..runtime.tuned import Measured

CHOOSE = {"forward": choose_forward, "backward": choose_backward}
SCHEMES = {"forward": FORWARD_SCHEMES, "backward": tuple(BACKWARD_SCHEMES)}
Sides = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Candidate:
    """One thing to time. tile: (BM, BN, BK, stages, warps), None where the scheme has no GEMM of ours."""

    passed: str
    m: int
    n: int
    k: int
    rank: int
    dropout: bool
    conv1d: bool
    bias: bool
    scheme: str
    tile: Sides | None

    def key(self) -> str:
        """How a record of times names it."""
        return json.dumps([*self.case, self.scheme, self.tile])

    @property
    def case(self) -> tuple[str, int, int, int, int, bool, bool, bool]:
        """What is compared: its candidates differ in scheme and tile alone."""
        return self.passed, self.m, self.n, self.k, self.rank, self.dropout, self.conv1d, self.bias

    def describe(self) -> str:
        tile = "" if self.tile is None else " {}x{}x{} s{} w{}".format(*self.tile)
        return f"{self.passed} {self.scheme}{tile} at {shape_words(self)}"


def shape_words(case: Case | Candidate | Measured) -> str:
    """A case for people: M 4096 N 3072 K 1024 r 8 dropout Conv1D bias."""
    flags = ((case.dropout, "dropout"), (case.conv1d, "Conv1D"), (case.bias, "bias"))
    words = "".join(f" {word}" for holds, word in flags if holds)
    return f"M {case.m} N {case.n} K {case.k} r {case.rank}{words}"


def candidates(case: Case, passed: str) -> list[Candidate]:
    """Every scheme and tile for a pass of one case; nothing where the dispatcher asks no table at all.

    First what is chosen without measurements, then cuBLAS, then the other schemes with the tile that the table would
    give them, then the other tiles.
    """
    untuned = CHOOSE[passed](replace(case, device="")).scheme
    if untuned == "torch":
        return []
    schemes = [scheme for scheme in SCHEMES[passed] if scheme != "torch" and serves(scheme, passed, case)]
    schemes.sort(key=lambda scheme: (scheme != untuned, scheme != "cublas"))
    first: list[tuple[str, Tile | None]] = []
    others: list[tuple[str, Tile | None]] = []
    for scheme in schemes:
        kernel = TILED.get(scheme)
        if kernel is None:
            first.append((scheme, None))
            continue
        masked = case.dropout and passed == "backward"
        tiles = [tile for tile in tiles_of(kernel, case.arch) if allows(tile, case.rank, masked)]
        chosen = choose_tile(kernel, case, case.m, case.n if passed == "forward" else case.k, masked)
        tiles.sort(key=lambda tile: _sides(tile) != _sides(chosen))
        first += [(scheme, tile) for tile in tiles[:1]]
        others += [(scheme, tile) for tile in tiles[1:]]
    made = [
        Candidate(
            passed, case.m, case.n, case.k, case.rank, case.dropout, case.conv1d, case.bias, scheme,
            None if tile is None else _sides(tile),
        )
        for scheme, tile in (*first, *others)
    ]  # fmt: skip
    return list(dict.fromkeys(made))


def _sides(tile: Tile) -> Sides:
    return tile.bm, tile.bn, tile.bk, tile.stages, tile.warps


def rounds(cases: Iterable[Case]) -> Iterator[list[Candidate]]:
    """The first candidate of every case, forward and backward in turn, then the second of every case, and so on: so
    whenever time ends, all cases have been compared as far as one another."""
    lists = [candidates(case, passed) for case in cases for passed in CHOOSE]
    for i in range(max(map(len, lists), default=0)):
        yield [of_case[i] for of_case in lists if i < len(of_case)]


def in_order(cases: Iterable[Case]) -> list[Candidate]:
    """All rounds, one after the other."""
    return list(chain.from_iterable(rounds(cases)))
