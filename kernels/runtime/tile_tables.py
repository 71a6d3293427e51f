"""Every tile that the dispatcher can choose, in one place, each with its reason: what the compiler made of it.

Which of them is chosen for a GEMM says tile_model.py, until `python -m kernels.tune` has measured them on a device.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """A tile and its compiler options, for ranks (padded) up to max_rank, with or without a dropout mask.

    masked: None for both. min_waves: the tile is too coarse where the output has fewer tiles than this times the SMs.
    """

    bm: int
    bn: int
    bk: int
    stages: int
    warps: int
    reason: str
    max_rank: int = 64
    masked: bool | None = None
    min_waves: float = 0.0


Tiles = dict[int, tuple[Tile, ...]]

# Architectures with entries of their own. Others of compute capability 8.0 and up take
# the tiles under SAFE; below that everything runs in cuBLAS.
SAFE = 0
KNOWN = (80, 86, 89, 90, 100, 120)

_SMALL = "fills the SMs where coarser tiles leave some idle"
_SAFE = "48 KiB of shared memory: fits every architecture with 16-bit tensor cores and asynchronous copies"

#: GEMM of the epilogue schemes, by pointers.
GEMM: Tiles = {
    80: (
        Tile(128, 256, 64, 3, 8, "no spill at rank 16, 96 KiB; reads W and X least often", 16, masked=False),
        Tile(128, 128, 32, 4, 4, "no spill at rank 16, 48 KiB: two blocks an SM", 16, masked=False),
        Tile(128, 128, 64, 3, 8, "no spill with the mask and at rank 64; 128x256 spills there"),
        Tile(64, 64, 64, 4, 4, _SMALL),
    ),
    86: (
        Tile(128, 128, 32, 4, 4, "no spill at rank 16, 48 KiB: two blocks an SM", 16, masked=False),
        Tile(128, 128, 64, 3, 8, "no spill with the mask and at rank 64, 64 KiB"),
        Tile(64, 64, 64, 4, 4, _SMALL),
    ),
    90: (
        Tile(128, 256, 64, 3, 8, "no spill, 144 KiB with the branch last", masked=False),
        Tile(128, 128, 64, 3, 8, "clean with the mask at every rank; 128x256 spills there"),
        Tile(64, 64, 64, 4, 4, _SMALL),
    ),
    100: (
        Tile(128, 256, 64, 3, 8, "no spill, 144 KiB; with the mask ptxas fails on it at rank 64", masked=False),
        Tile(128, 128, 64, 3, 8, "no spill with the mask at every rank, 96 KiB: two blocks an SM"),
        Tile(64, 64, 64, 4, 4, _SMALL),
    ),
    120: (
        Tile(128, 128, 32, 4, 4, "no spill at rank 16, 48 KiB; rank 64 spills 68 to 1144 bytes", 16, masked=False),
        Tile(128, 128, 64, 3, 8, "no spill without a mask, 64 KiB", masked=False),
        Tile(128, 128, 64, 3, 8, "with the mask rank 64 spills 80 bytes beside fp32 adapters", 32, masked=True),
        Tile(64, 64, 64, 4, 4, _SMALL),
    ),
    SAFE: (Tile(128, 128, 32, 4, 8, _SAFE), Tile(64, 64, 32, 4, 4, _SMALL)),
}

#: The same for the sum of a group's products. 128x256 spills 84 bytes on sm_80, where
#: the addresses of three products are held beside the accumulator, and 128x128x32 144 on sm_120.
GEMM_SUM: Tiles = GEMM | {80: GEMM[80][1:], 120: GEMM[120][1:]}

#: The same with TMA: persistent, no flattening. The store in two halves.
GEMM_TMA: Tiles = {
    90: (
        Tile(128, 256, 64, 4, 8, "no spill, 224 KiB, six copies in flight", masked=False),
        Tile(128, 256, 64, 4, 8, "248 registers; rank 32 spills 120 bytes where dS' has four parts", 16, masked=True),
        Tile(128, 128, 64, 3, 8, "no spill, 112 KiB and 124 registers: two blocks an SM", masked=False),
        Tile(128, 128, 64, 4, 8, "no spill with the mask at rank 32; rank 64 spills 104 bytes", 32, masked=True),
        Tile(64, 128, 64, 4, 4, "no spill, 104 KiB: two blocks an SM, " + _SMALL, masked=False),
    ),
    100: (
        Tile(128, 256, 64, 4, 8, "no spill, 224 KiB; both accumulators fill the tensor memory", masked=False),
        Tile(128, 128, 64, 3, 8, "no spill, 112 KiB: two blocks an SM; with the mask 171 registers at rank 64"),
        Tile(128, 64, 64, 4, 4, "no spill, 104 KiB: two blocks an SM, " + _SMALL, masked=False),
    ),
    120: (
        Tile(128, 128, 64, 3, 8, "no spill, 80 KiB; without a mask rank 64 spills 912 bytes", 16),
        Tile(128, 64, 64, 3, 8, "no spill at rank 64, with and without the mask, 56 KiB"),
    ),
}

#: The same for the sum of a group's products. On sm_100 128x256 is left out: it compiles to nothing (triton 3.7.1).
GEMM_SUM_TMA: Tiles = GEMM_TMA | {100: GEMM_TMA[100][1:]}

#: The kernel of single_pass.
SINGLE_PASS: Tiles = {
    80: (
        Tile(128, 128, 32, 4, 8, "no spill up to rank 64, 51 to 60 KiB, 8 warps"),
        Tile(64, 64, 64, 4, 4, _SMALL),
    ),
    86: (
        Tile(128, 128, 32, 4, 8, "no spill up to rank 64, 51 to 60 KiB, 8 warps"),
        Tile(64, 64, 64, 4, 4, _SMALL),
    ),
    90: (
        Tile(128, 256, 64, 3, 8, "no spill, 150 to 168 KiB"),
        Tile(128, 128, 64, 3, 8, "no spill, 102 to 120 KiB"),
        Tile(64, 64, 64, 4, 4, _SMALL),
    ),
    SAFE: (Tile(64, 64, 32, 4, 4, _SAFE),),
}

#: S kernel: bn is unused. Parts fill the GPU where M / bm does not.
PROJECT: Tiles = {
    SAFE: (
        Tile(32, 0, 128, 3, 4, "no spill on any architecture, at most 48 KiB, with and without dropout", min_waves=1.0),
        Tile(16, 0, 128, 4, 4, "more blocks for few tokens"),
    ),
}

_TALL = Tile(128, 64, 0, 3, 8, "addends of dB are N * M / 128: 8.4 MB at 4096 squared", min_waves=0.5, max_rank=16)

#: dS' and dB in one pass over dY: bm rows and bn columns a step.
BRANCH_GRADIENTS: Tiles = {
    120: (
        _TALL,
        Tile(64, 64, 0, 3, 8, "no spill; with 4 warps fp32 adapters of rank 64 over fp16 spill 84 bytes"),
    ),
    SAFE: (
        _TALL,
        Tile(64, 64, 0, 3, 4, "no spill; at rank 64 a taller block does not fit beside its S'"),
    ),
}

#: The same with dA: bm rows.
BRANCH_GRADIENTS_DA: Tiles = {SAFE: (Tile(32, 64, 0, 3, 4, "one block per 32 rows: 64 blocks for 2048 tokens"),)}

#: dA, dP, dB alone: bm rows a step, bn columns a block.
SKINNY: Tiles = {
    SAFE: (Tile(64, 64, 0, 4, 4, "no spill, every load asynchronous, on all architectures"),),
}

#: The same where the small factor comes in parts: each is an fp32 stream of its own, and takes shared memory.
SKINNY_PARTS: Tiles = {
    SAFE: (
        Tile(32, 128, 0, 3, 4, "at most 72 KiB with four parts", max_rank=16),
        Tile(32, 128, 0, 2, 4, "at most 80 KiB with four parts of rank 64"),
    ),
}

#: The gather of x[:, index]: bm rows.
GATHER: Tiles = {SAFE: (Tile(64, 0, 0, 1, 4, "30 to 40 registers, no shared memory"),)}

#: Norms of the rows of W + s B A: bm rows of W, bn is unused. This and the two below have nothing to tune: bandwidth
#: limits them, and loads in flight are all it takes. W's are not asynchronous, since no product reads W, so they come
#: of blocks beside each other: at 96 to 128 registers four or five an SM, each with 8 KiB of W under way.
ROW_NORMS: Tiles = {SAFE: (Tile(64, 0, 64, 3, 4, "no spill; whole 128-byte lines of W in either layout"),)}

#: y = g z + b: bm rows, bn columns.
MAGNITUDE: Tiles = {SAFE: (Tile(32, 128, 0, 1, 4, "48 registers; 64 bytes of z a thread, all asked for at once"),)}

#: dz and dm: bm rows a step, bn columns a block.
MAGNITUDE_GRADIENT: Tiles = {SAFE: (Tile(16, 128, 0, 3, 4, "80 registers: six blocks an SM, 8 KiB of dY and z each"),)}

#: What the interpreter runs: small, so that odd shapes have several tiles in every direction.
INTERPRETED = {
    kernel: Tile(bm, bn, bk, stages, 4, "several tiles of a small shape")
    for kernel, (bm, bn, bk, stages) in {
        "gemm": (32, 32, 32, 2), "gemm_tma": (32, 32, 32, 2), "gemm_sum": (32, 32, 32, 2),
        "gemm_sum_tma": (32, 32, 32, 2), "single_pass": (32, 32, 32, 2), "project": (16, 0, 32, 2),
        "branch_gradients": (32, 32, 0, 2), "branch_gradients_da": (16, 32, 0, 2), "skinny": (16, 32, 0, 2),
        "skinny_parts": (16, 32, 0, 2), "gather": (16, 0, 0, 1), "row_norms": (16, 0, 16, 2),
        "magnitude": (16, 32, 0, 1), "magnitude_gradient": (16, 32, 0, 2),
    }.items()
}  # fmt: skip

TILES: dict[str, Tiles] = {
    "gemm": GEMM, "gemm_tma": GEMM_TMA, "gemm_sum": GEMM_SUM, "gemm_sum_tma": GEMM_SUM_TMA,
    "single_pass": SINGLE_PASS, "project": PROJECT, "branch_gradients": BRANCH_GRADIENTS,
    "branch_gradients_da": BRANCH_GRADIENTS_DA, "skinny": SKINNY, "skinny_parts": SKINNY_PARTS, "gather": GATHER,
    "row_norms": ROW_NORMS, "magnitude": MAGNITUDE, "magnitude_gradient": MAGNITUDE_GRADIENT,
}  # fmt: skip
# sm_89 has sm_86's shared memory, and the same verdict in every compiled cell.
GEMM[89] = GEMM_SUM[89] = GEMM[86]
SINGLE_PASS[89] = SINGLE_PASS[86]
# A single pass is as clean with tcgen05 as with wgmma, and on sm_120 as on sm_86.
SINGLE_PASS[100] = SINGLE_PASS[90]
SINGLE_PASS[120] = SINGLE_PASS[86]
