"""How far the estimate is from what others have published of plain Triton GEMMs: as shares of the cuBLAS of the same
thread, since few say at which clocks or power limit they ran.

The estimate's one fitted number (SYNCHRONOUS) comes from FITTED. HELD_OUT had no part in it, though whoever wrote the
model had seen it: L2's rate was put on the clock that it holds when H100 came out too slow. The rows of the RTX 5090
and those of K 512 were added later, and nothing was changed for them. Left out are the squares of 1024 and 2048 of
triton#6523 and triton#3672: Triton takes the same 85 to 180 us at both, which is the host's time.
"""

from statistics import median

import pytest

pytest.importorskip("triton")

from kernels.audit.estimate import estimates
from kernels.runtime import launch

# GPU, kernel of ours, what is computed, tokens x out_features x in_features, share of cuBLAS (TFLOP/s of both, or ms of
# both); the source.
GEMM, TMA = "gemm_kernel", "gemm_tma_kernel"
FITTED = [
    ("a100", GEMM, "forward", (4096, 4096, 4096), 214.405 / 212.706),  # triton-lang/triton#743, fp16
    ("a100", GEMM, "forward", (8192, 8192, 8192), 267.433 / 272.731),
    ("a100", GEMM, "forward", (4096, 4096, 4096), 186.414 / 211.366),  # the same, bf16
    ("a100", GEMM, "forward", (8192, 8192, 8192), 223.231 / 229.138),
    ("a100", GEMM, "forward", (2432, 2432, 2432), 168 / 177),  # triton-lang/triton#6523, fp16
    ("a100", GEMM, "forward", (2816, 2816, 2816), 156 / 158),
    ("a100", GEMM, "forward", (2944, 2944, 2944), 170 / 176),
]
HELD_OUT = [
    (
        "a100",
        GEMM,
        "forward",
        (2048, 2048, 2048),
        181.05 / 155.31,
    ),  # gau-nernst/learn-cuda@1454f8b:02b_matmul_sm80, bf16
    ("a100", GEMM, "forward", (4096, 4096, 4096), 229.08 / 246.29),
    ("a100", GEMM, "forward", (8192, 8192, 8192), 241.66 / 261.82),
    ("h100", GEMM, "forward", (2816, 2816, 2816), 501 / 616),  # triton-lang/triton#3672, fp16
    ("h100", GEMM, "forward", (3072, 3072, 3072), 525 / 585),
    ("h100", GEMM, "forward", (4096, 4096, 4096), 0.278 / 0.293),  # CentML/lorafusion#8: LoRA, rank 16, H100 NVL, bf16
    ("h100", GEMM, "dX", (4096, 4096, 4096), 0.278 / 0.284),
    ("a6000", GEMM, "forward", (1024, 1024, 1024), 84 / 87),  # triton-lang/triton#459, fp16
    (
        "rtx5090",
        GEMM,
        "forward",
        (2048, 2048, 2048),
        141.45 / 164.42,
    ),  # learn-cuda@1454f8b:02c_matmul_sm120, bf16, 400 W
    ("rtx5090", GEMM, "forward", (4096, 4096, 4096), 174.4 / 172.61),
    ("rtx5090", GEMM, "forward", (8192, 8192, 8192), 184.88 / 166.78),
    ("h100", GEMM, "forward", (8192, 8192, 512), 217.548 / 285.369),  # triton-lang/triton#5726, fp16, at a low clock
    ("h100", TMA, "forward", (8192, 8192, 512), 262.312 / 285.369),  # the same, matmul_kernel_descriptor_persistent
]


@pytest.mark.slow
@pytest.mark.skipif(launch.interpreting(), reason="interpreted kernels cannot be compiled")
def test_shares_of_cublas_against_published_ones() -> None:
    shares: dict[tuple[str, str, str, tuple[int, int, int]], float] = {}
    asked = dict.fromkeys((row[0], row[1]) for row in FITTED + HELD_OUT)
    for gpu, kernel in asked:
        shapes = [row[3] for row in FITTED + HELD_OUT if row[:2] == (gpu, kernel)]
        for row in estimates([gpu], shapes, [kernel]):
            m, n, k = map(int, row["shape"].split("x"))
            key = gpu, kernel, row["computes"], (m, n, k)
            shares[key] = max(shares.get(key, 0.0), row["share"])  # all of them had tuned their tiles

    def errors(published: list[tuple[str, str, str, tuple[int, int, int], float]]) -> list[float]:
        return [abs(shares[row[:4]] / row[4] - 1) for row in published]

    for row in FITTED + HELD_OUT:
        print(*row[:4], "published", round(row[4], 2), "estimated", shares[row[:4]])
    fitted, held_out = errors(FITTED), errors(HELD_OUT)
    print(f"fitted: {median(fitted):.3f} {max(fitted):.3f}; held out: {median(held_out):.3f} {max(held_out):.3f}")
    assert median(fitted) < 0.07 and max(fitted) < 0.10
    assert median(held_out) < 0.07 and max(held_out) < 0.23
