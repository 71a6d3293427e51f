"""Every choice the dispatcher makes, in one place, each with its reason.

A rule is tried in order; the first whose conditions hold decides. What `python -m kernels.tune` measured on a device
stands in its file (tuned.py) and is asked first; the rules below are rooflines and compile-time facts, and hold until
then.
Sizes: M tokens, K in_features, N out_features of the forward product; for dX, N is the reduction and K the width.
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


@dataclass(frozen=True)
class Rule:
    """A scheme, for archs (empty: any), where the sizes lie within the limits."""

    scheme: str
    reason: str
    archs: tuple[int, ...] = ()
    dropout: bool | None = None
    max_n: int = 1 << 40
    max_k: int = 1 << 40
    max_n_plus_k: int = 1 << 40
    max_rank: int = 1 << 40
    bordered: bool = False


Tiles = dict[int, tuple[Tile, ...]]

# Architectures with entries of their own. Others of compute capability 8.0 and up take
# the rules without one and the tiles under SAFE; below that everything runs in cuBLAS.
SAFE = 0
KNOWN = (80, 86, 89, 90)

FORWARD = (
    Rule("bordered", "one cuBLAS GEMM; the copy of X costs 2MK bytes, Triton below 0.95 of cuBLAS more", bordered=True),
    Rule("single_pass", "12.5 % of the GEMM at 270 TFLOP/s costs less than reading X again at 1.9 TB/s where N < 1130",
         (80,), dropout=False, max_n=1024, max_rank=16),
    Rule("single_pass", "12.5 % of the GEMM at 140 TFLOP/s costs less than reading X again at 0.7 TB/s where N < 1600",
         (86, 89), dropout=False, max_n=1600, max_rank=16),
    Rule("single_pass", "10 % of the GEMM at 800 TFLOP/s costs less than reading X again at 3.35 TB/s where N < 2400",
         (90,), dropout=False, max_n=2048, max_rank=64),
    Rule("epilogue", "addmm_'s pass over Y costs 284/K of the GEMM; Triton at 0.93 of cuBLAS loses 7 %",
         (80,), max_k=4096),
    Rule("epilogue", "addmm_'s pass over Y costs 400/K of the GEMM; Triton at 0.93 of cuBLAS 7 %",
         (86, 89), max_k=5120),
    Rule("epilogue_tma", "addmm_'s pass over Y costs 477/K of the GEMM; TMA at 0.95 of cuBLAS loses 5 %",
         (90,), max_k=8192),
    Rule("cublas", "cuBLAS and addmm_: no Triton GEMM to lose against it, right on every architecture"),
)  # fmt: skip

BACKWARD = (
    Rule("epilogue_fused_da", "one launch for dS, dB and dA saves 2.5 us; its addends stay in L2 for small N + K",
         (80, 86, 89, 90), max_n=5120, max_n_plus_k=2560, max_rank=16),
    Rule("epilogue", "addmm_'s pass over dX costs 284/N of the GEMM; Triton at 0.93 of cuBLAS loses 7 %",
         (80,), max_n=4096),
    Rule("epilogue", "addmm_'s pass over dX costs 400/N of the GEMM; Triton at 0.93 of cuBLAS 7 %",
         (86, 89), max_n=5120),
    Rule("epilogue_tma", "addmm_'s pass over dX costs 477/N of the GEMM; TMA at 0.95 of cuBLAS loses 5 %",
         (90,), dropout=False, max_n=8192),
    Rule("epilogue_tma", "the mask is applied to half a tile at a time; a separate masked pass moves dX twice more",
         (90,), dropout=True, max_n=8192, max_rank=32),
    Rule("epilogue", "the mask is applied in the epilogue of 128x128 tiles; by TMA rank 64 spills 104 bytes there",
         (90,), dropout=True, max_n=8192),
    Rule("cublas", "dX by cuBLAS and addmm_: no Triton GEMM to lose against it, right on every architecture"),
)  # fmt: skip

_SMALL = "fills the SMs where coarser tiles leave some idle"
_SAFE = "48 KiB of shared memory: fits every architecture with 16-bit tensor cores and asynchronous copies"

#: GEMM of the epilogue schemes, by pointers.
GEMM: Tiles = {
    80: (
        Tile(
            128,
            256,
            64,
            3,
            8,
            "no spill at rank 16, 96 KiB; reads W and X least often",
            16,
            masked=False,
            min_waves=1.0,
        ),
        Tile(128, 128, 32, 4, 4, "no spill at rank 16, 48 KiB: two blocks an SM", 16, masked=False, min_waves=0.8),
        Tile(128, 128, 64, 3, 8, "no spill with the mask and at rank 64; 128x256 spills there", min_waves=0.8),
        Tile(64, 64, 64, 4, 4, _SMALL),
    ),
    86: (
        Tile(128, 128, 32, 4, 4, "no spill at rank 16, 48 KiB: two blocks an SM", 16, masked=False, min_waves=0.8),
        Tile(128, 128, 64, 3, 8, "no spill with the mask and at rank 64, 64 KiB", min_waves=0.8),
        Tile(64, 64, 64, 4, 4, _SMALL),
    ),
    90: (
        Tile(128, 256, 64, 3, 8, "no spill, 144 KiB with the branch last", masked=False, min_waves=0.8),
        Tile(128, 128, 64, 3, 8, "clean with the mask at every rank; 128x256 spills there", min_waves=0.5),
        Tile(64, 64, 64, 4, 4, _SMALL),
    ),
    SAFE: (Tile(128, 128, 32, 4, 8, _SAFE, min_waves=0.8), Tile(64, 64, 32, 4, 4, _SMALL)),
}

#: The same for the sum of a group's products; by TMA it has the tiles of one. 128x256 spills 84 bytes on sm_80, where
#: the addresses of three products are held beside the accumulator.
GEMM_SUM: Tiles = GEMM | {80: GEMM[80][1:]}

#: The same on sm_90 with TMA: persistent, no flattening.
GEMM_TMA: Tiles = {
    90: (
        Tile(
            128,
            256,
            64,
            4,
            8,
            "no spill, 224 KiB, six copies in flight; the store in two halves",
            masked=False,
            min_waves=0.8,
        ),
        Tile(
            128,
            256,
            64,
            4,
            8,
            "no spill, 248 registers; rank 32 spills 120 bytes where dS' comes in four parts",
            16,
            masked=True,
            min_waves=0.8,
        ),
        Tile(128, 128, 64, 4, 8, "fills the SMs where 128x256 leaves some idle; no spill with the mask at rank 32"),
    ),
}

#: The kernel of single_pass.
SINGLE_PASS: Tiles = {
    80: (
        Tile(128, 128, 32, 4, 8, "no spill up to rank 64, 51 to 60 KiB, 8 warps", min_waves=0.8),
        Tile(64, 64, 64, 4, 4, _SMALL),
    ),
    86: (
        Tile(128, 128, 32, 4, 8, "no spill up to rank 64, 51 to 60 KiB, 8 warps", min_waves=0.8),
        Tile(64, 64, 64, 4, 4, _SMALL),
    ),
    90: (
        Tile(128, 256, 64, 3, 8, "no spill, 150 to 168 KiB", min_waves=0.8),
        Tile(128, 128, 64, 3, 8, "no spill, 102 to 120 KiB", min_waves=0.5),
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

#: dS' and dB in one pass over dY: bm rows and bn columns a step.
BRANCH_GRADIENTS: Tiles = {
    SAFE: (
        Tile(128, 64, 0, 3, 8, "addends of dB are N * M / 128: 8.4 MB at 4096 squared", min_waves=0.5, max_rank=16),
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

#: What the interpreter runs: small, so that odd shapes have several tiles in every direction.
INTERPRETED = {
    kernel: Tile(bm, bn, bk, stages, 4, "several tiles of a small shape")
    for kernel, (bm, bn, bk, stages) in {
        "gemm": (32, 32, 32, 2), "gemm_sum": (32, 32, 32, 2), "gemm_tma": (32, 32, 32, 2),
        "single_pass": (32, 32, 32, 2), "project": (16, 0, 32, 2),
        "branch_gradients": (32, 32, 0, 2), "branch_gradients_da": (16, 32, 0, 2), "skinny": (16, 32, 0, 2),
        "skinny_parts": (16, 32, 0, 2), "gather": (16, 0, 0, 1),
    }.items()
}  # fmt: skip

TILES: dict[str, Tiles] = {
    "gemm": GEMM, "gemm_sum": GEMM_SUM, "gemm_tma": GEMM_TMA, "single_pass": SINGLE_PASS, "project": PROJECT,
    "branch_gradients": BRANCH_GRADIENTS, "branch_gradients_da": BRANCH_GRADIENTS_DA,
    "skinny": SKINNY, "skinny_parts": SKINNY_PARTS, "gather": GATHER,
}  # fmt: skip
# sm_89 has sm_86's shared memory, and the same verdict in every compiled cell.
GEMM[89] = GEMM_SUM[89] = GEMM[86]
SINGLE_PASS[89] = SINGLE_PASS[86]
