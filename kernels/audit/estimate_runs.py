"""What the estimate is of: every kernel with a product, in its uses and tiles, and how much each does at a shape."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from math import ceil
from typing import Any

import torch

from ..runtime.architectures import features
from ..runtime.dispatch import Case, allows, choose_backward, choose_forward, tiles_of
from ..runtime.launch import Launch
from ..runtime.schemes import TILED
from ..runtime.tile_tables import TILES, Tile
from .compilation import Compilation, compilation
from .estimate_machine import Machine
from .estimate_model import Run
from .launches import KERNELS, USES, M, Use, record

RANK, DTYPE = 16, torch.bfloat16

#: The lists of tiles for a GEMM, and the one that the dispatcher names when it chooses its scheme.
GEMMS = {tiles: tiles for tiles in TILED.values()} | {"gemm_sum": "gemm", "gemm_sum_tma": "gemm_tma"}

#: The kernels whose one launch is dX of a group of siblings.
SUMS = ("gemm_sum_kernel", "gemm_sum_tma_kernel")


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

    def at(self, machine: Machine, m: int, n: int, k: int) -> Launch:
        """Its launch for m tokens, n out_features, k in_features."""
        use = replace(self.use, m=m, n=n, k=k, sms=machine.sms)
        return _calls(self.tiles, self.kernel, use, self.tile, machine.arch)[self.position][0]

    def is_chosen(self, machine: Machine, m: int, n: int, k: int) -> bool:
        """Whether the dispatcher would run it there: its scheme, where it is a GEMM, and its tile."""
        use = replace(self.use, m=m, n=n, k=k, sms=machine.sms)
        if self.tiles in GEMMS:
            case = Case(m, n, k, RANK, machine.arch, machine.sms, use.dropout)
            choose = choose_backward if self.computes.startswith("dX") else choose_forward
            if TILED.get(choose(case).scheme) != GEMMS[self.tiles]:
                return False
        here, there = self.at(machine, m, n, k), _calls(self.tiles, self.kernel, use, None, machine.arch)
        sides = ("BM", "BN", "BK", "BC")
        return len(there) > self.position and all(
            other.options == here.options and all(other.constants.get(x) == here.constants.get(x) for x in sides)
            for other in [there[self.position][0]]
        )


@cache  # every tile and GPU asks what the dispatcher would take
def _calls(tiles: str, kernel: str, use: Use, tile: Tile | None, arch: int) -> list[tuple[Launch, dict[str, Any]]]:
    calls = record(arch, RANK, DTYPE, use, {} if tile is None else {tiles: tile})
    return [call for call in calls if call[0].name == kernel]


def subjects(arch: int, kernels: list[str] | None = None) -> Iterator[Subject]:
    """Everything with a product that is launched on sm_<arch> at rank 16 in bf16, each specialisation once: without
    Conv1D's layout, in which forward's product is dX's, and without fp32 adapters. Of a group of siblings the sum that
    is their dX; what else a group launches is launched for single layers too."""
    seen = set()
    for tiles in TILES:
        if tiles.endswith("_tma") and not features(arch).tma:
            continue
        names = [name for name in KERNELS.get(tiles, (f"{tiles}_kernel",)) if name in ESTIMATED]
        for tile in tiles_of(tiles, arch):
            for use in USES[tiles]:
                if use.wide or use.conv1d or use.m != M or use.needs != "xab" or "bordered" in use.scheme:
                    continue
                if tiles in GEMMS and not allows(tile, RANK, use.dropout and tiles != "single_pass"):
                    continue
                for kernel in names:
                    if (kernels and kernel not in kernels) or use.scheme.startswith("group ") != (kernel in SUMS):
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
        **dict.fromkeys(SUMS, "dX of three"),
    }.get(run.name, ("forward", "dX")[position] if position < 2 else "")  # fmt: skip
    if use.scheme.startswith("paca "):
        what = "dP, gathering" if run.constants.get("GATHER") else "dP"
    elif run.constants.get("WITH_DA"):
        what += ", dA"
    masked = run.constants.get("MASKED") or run.constants.get("DROPOUT")
    return f"{what} under dropout" if masked else what


def run_of(launched: Launch) -> Run:
    """How often the loop of a launch runs, and the bytes it moves."""
    return _RUNS[launched.name](launched.sizes, launched.constants, launched.grid)


def _gemm(sizes: dict[str, int], c: dict[str, Any], grid: tuple[int, ...]) -> Run:
    m, n, bm, bn, bk = sizes["M"], sizes["N"], c["BM"], c["BN"], c["BK"]
    depths = [sizes[name] for name in ("K", "K0", "K1", "K2") if name in sizes]  # of a sum one for each of its products
    k = sum(depths)
    return Run(
        tiles=ceil(m / bm) * ceil(n / bn),
        steps=sum(ceil(depth / bk) for depth in depths),
        copied_bytes=(bm + bn) * bk * 2,
        stored_bytes=bm * bn * 2,
        unique_bytes=2 * (m * k + n * k + m * n),
        programs=grid[0] if "PROGRAMS" in c else None,
        macs=max(bm, 128) * bn * bk,  # an instruction of tcgen05 takes as long for 64 rows as for 128
        product=(m, n, k),
    )


def _single_pass(sizes: dict[str, int], c: dict[str, Any], grid: tuple[int, ...]) -> Run:
    run = _gemm(sizes, c, grid)
    copied = run.copied_bytes + c["RP"] * c["BK"] * 2
    return replace(run, copied_bytes=copied, macs=run.macs + max(c["BM"], 128) * c["RP"] * c["BK"])


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
    "gemm_kernel": _gemm, "gemm_tma_kernel": _gemm, **dict.fromkeys(SUMS, _gemm), "single_pass_kernel": _single_pass,
    "project_kernel": _project, "branch_gradients_kernel": _branch_gradients, "skinny_kernel": _skinny,
}  # fmt: skip

#: The kernels that have a product and can be estimated; the others copy or add.
ESTIMATED = tuple(_RUNS)
