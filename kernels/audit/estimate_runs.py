"""What the estimate is of: every kernel with a product, in its uses and tiles, and how much each does at a shape."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import torch

from ..runtime.dispatch import Case, allows, choose_backward, choose_forward, tiles_of
from ..runtime.launch import Launch
from ..runtime.schemes import TILED
from ..runtime.tile_tables import TILES, Tile
from .compilation import Compilation, compilation
from .estimate_model import Run
from .launches import KERNELS, SMS, USES, M, Use, record

RANK, DTYPE = 16, torch.bfloat16


@dataclass(frozen=True)
class Subject:
    """One launch to be estimated: the position-th of its kernel that a use makes with a tile of a list of tiles."""

    tiles: str  # a name of TILES
    kernel: str
    use: Use
    tile: Tile
    position: int
    computes: str  # 'forward', 'dX under dropout', ...
    compilation: Compilation

    def at(self, arch: int, m: int, n: int, k: int) -> Launch:
        """Its launch for m tokens, n out_features, k in_features."""
        return _calls(self.tiles, self.kernel, replace(self.use, m=m, n=n, k=k), self.tile, arch)[self.position][0]

    def is_chosen(self, arch: int, m: int, n: int, k: int) -> bool:
        """Whether the dispatcher would run it there: its scheme, where it is a GEMM, and its tile."""
        use = replace(self.use, m=m, n=n, k=k)
        if self.tiles in TILED.values():
            case = Case(m, n, k, RANK, arch, SMS[arch], use.dropout)
            choose = choose_backward if self.computes.startswith("dX") else choose_forward
            if TILED.get(choose(case).scheme) != self.tiles:
                return False
        here, there = self.at(arch, m, n, k), _calls(self.tiles, self.kernel, use, None, arch)
        sides = ("BM", "BN", "BK", "BC")
        return len(there) > self.position and all(
            other.options == here.options and all(other.constants.get(x) == here.constants.get(x) for x in sides)
            for other in [there[self.position][0]]
        )


def _calls(tiles: str, kernel: str, use: Use, tile: Tile | None, arch: int) -> list[tuple[Launch, dict[str, Any]]]:
    calls = record(arch, RANK, DTYPE, use, {} if tile is None else {tiles: tile})
    return [call for call in calls if call[0].name == kernel]


def subjects(arch: int, kernels: list[str] | None = None) -> Iterator[Subject]:
    """Everything with a product that is launched on sm_<arch> at rank 16 in bf16, each specialisation once: without
    Conv1D's layout, in which forward's product is dX's, and without fp32 adapters."""
    seen = set()
    for tiles in TILES:
        names = [name for name in KERNELS.get(tiles, (f"{tiles}_kernel",)) if name in ESTIMATED]
        for tile in tiles_of(tiles, arch):
            for use in USES[tiles]:
                if use.wide or use.conv1d or use.m != M or use.needs != "xab" or "bordered" in use.scheme:
                    continue
                if tiles in TILED.values() and not allows(tile, RANK, use.dropout and tiles != "single_pass"):
                    continue
                for kernel in names:
                    if kernels and kernel not in kernels:
                        continue
                    for position, (run, inputs) in enumerate(_calls(tiles, kernel, use, tile, arch)):
                        found = compilation(run, inputs, "")
                        key = replace(found, config="")
                        if key not in seen:
                            seen.add(key)
                            yield Subject(tiles, kernel, use, tile, position, _computes(run, position, use), found)


def _computes(run: Launch, position: int, use: Use) -> str:
    what = {
        "project_kernel": "S'", "branch_gradients_kernel": "dS', dB", "skinny_kernel": "dA",
    }.get(run.name, ("forward", "dX")[position] if position < 2 else "")  # fmt: skip
    if use.scheme.startswith("paca "):
        what = "dP, gathering" if run.constants.get("GATHER") else "dP"
    elif run.constants.get("WITH_DA"):
        what += ", dA"
    masked = run.constants.get("MASKED") or run.constants.get("DROPOUT")
    return f"{what} under dropout" if masked else what


def product(computes: str, m: int, n: int, k: int) -> tuple[int, int, int]:
    """Rows, columns and length of the sums of a layer's forward, or of its dX."""
    return (m, k, n) if computes.startswith("dX") else (m, n, k)


def run_of(launched: Launch) -> Run:
    """How often the loop of a launch runs, and the bytes it moves."""
    return _RUNS[launched.name](launched.sizes, launched.constants, launched.grid)


def _gemm(sizes: dict[str, int], c: dict[str, Any], grid: tuple[int, ...]) -> Run:
    m, n, k = sizes["M"], sizes["N"], sizes["K"]
    tile = c["BM"] * c["BN"] * 2
    tiles = ceil(m / c["BM"]) * ceil(n / c["BN"])
    programs = grid[0] if "PROGRAMS" in c else None
    copied = (c["BM"] + c["BN"]) * c["BK"] * 2
    return Run(tiles, ceil(k / c["BK"]), copied, tile, 2 * (m * k + n * k + m * n), programs)


def _single_pass(sizes: dict[str, int], c: dict[str, Any], grid: tuple[int, ...]) -> Run:
    run = _gemm(sizes, c, grid)
    return replace(run, copied_bytes=run.copied_bytes + c["RP"] * c["BK"] * 2)


def _project(sizes: dict[str, int], c: dict[str, Any], grid: tuple[int, ...]) -> Run:
    m, k = sizes["M"], sizes["K"]
    steps = ceil(ceil(k / c["BK"]) / c["PARTS"])
    unique = 2 * m * k + (m * k // 8 if c["DROPOUT"] else 0)
    return Run(grid[0] * grid[1], steps, (c["BM"] + c["RP"]) * c["BK"] * 2, c["BM"] * c["RP"] * 4, unique)


def _branch_gradients(sizes: dict[str, int], c: dict[str, Any], grid: tuple[int, ...]) -> Run:
    m, n = sizes["M"], sizes["N"]
    # With dA, X is read in a second loop of steps alike.
    columns = n + (sizes["K"] if c["WITH_DA"] else 0)
    steps = ceil(ceil(columns / c["BN"]) / c["PARTS"])
    step = (c["BM"] + c["RP"]) * c["BN"] * 2 + c["RP"] * c["BN"] * 4
    unique = 2 * m * columns + ceil(m / c["BM"]) * c["RP"] * columns * 4
    return Run(grid[0] * grid[1], steps, step, c["BM"] * c["RP"] * 4, unique)


def _skinny(sizes: dict[str, int], c: dict[str, Any], grid: tuple[int, ...]) -> Run:
    m, columns = sizes["M"], sizes["C"]
    steps = ceil(ceil(m / c["BM"]) / c["PARTS"])
    step = c["BM"] * (c["BC"] + c["RP"]) * 2
    unique = 2 * m * columns + c["PARTS"] * c["RP"] * columns * 4
    return Run(grid[0] * grid[1], steps, step, c["BC"] * c["RP"] * 4, unique)


_RUNS: dict[str, Callable[[dict[str, int], dict[str, Any], tuple[int, ...]], Run]] = {
    "gemm_kernel": _gemm, "gemm_tma_kernel": _gemm, "single_pass_kernel": _single_pass, "project_kernel": _project,
    "branch_gradients_kernel": _branch_gradients, "skinny_kernel": _skinny,
}  # fmt: skip

#: The kernels that have a product and can be estimated; the others copy or add.
ESTIMATED = tuple(_RUNS)
