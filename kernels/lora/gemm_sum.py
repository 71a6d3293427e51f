"""dX of a group in one launch: the sum of the siblings' products dY_i W_i, and one branch dS' A over all their ranks.

Each tile of dX stays in its accumulator from the first sibling's product to the last, where a GEMM each would write it
and read it again. gemm_sum_kernel reads by pointers, gemm_sum_tma_kernel by TMA, as gemm_kernel and gemm_tma_kernel do,
with their tiles. Two or three siblings: the third one's operands may be None, its size 0.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from ..runtime import launch
from ..runtime.jit_helpers import down, follow, load_keeps
from ..runtime.sizes import mask_bytes, padded
from ..runtime.tensor_maps import Layout
from .gemm import add_branch, add_product, grouped_tile, rank_chunk
from .gemm_tma import add_product_tma, finish_half

#: Products that one launch can sum.
MOST = 3


@triton.jit
def gemm_sum_kernel(
    p_x0, p_x1, p_x2, p_w0, p_w1, p_w2, p_s, p_v, p_mask, p_y,
    M, N, K0, K1, K2, stride_xm0, stride_xm1, stride_xm2, stride_wk0, stride_wk1, stride_wk2,
    stride_wn0, stride_wn1, stride_wn2, stride_vr, BYTES,
    R: tl.constexpr, RP: tl.constexpr, STRIDE_SM: tl.constexpr, PARTS: tl.constexpr, MASKED: tl.constexpr,
    EVEN_K: tl.constexpr, COUNT: tl.constexpr, PDL: tl.constexpr, UP: tl.constexpr, RC: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Grid (cdiv(M, BM) * cdiv(N, BN),).

    p_xi (M, Ki) with unit stride in k; p_wi element (k, n) at k * stride_wki + n * stride_wni; p_s (PARTS, M,
    STRIDE_SM); p_v (R, N), rows stride_vr apart; p_mask (M, BYTES) keeps of the branch, packed; p_y (M, N).
    """
    i_m, i_n = grouped_tile(tl.program_id(0), M, N, BM, BN, GROUP)
    o_m = i_m * BM + tl.arange(0, BM)
    o_n = i_n * BN + tl.arange(0, BN)
    # Rows and columns past the end read from the beginning: no masks inside the loops.
    o_xm = (o_m % M).to(tl.int64)
    o_wn = (o_n % N).to(tl.int64)
    b_y = tl.zeros((BM, BN), dtype=tl.float32)
    b_y = add_product(b_y, p_x0, p_w0, o_xm, o_wn, K0, stride_xm0, stride_wk0, stride_wn0, EVEN_K, UP, BK)
    b_y = add_product(b_y, p_x1, p_w1, o_xm, o_wn, K1, stride_xm1, stride_wk1, stride_wn1, EVEN_K, UP, BK)
    if COUNT > 2:
        b_y = add_product(b_y, p_x2, p_w2, o_xm, o_wn, K2, stride_xm2, stride_wk2, stride_wn2, EVEN_K, UP, BK)
    follow(PDL)
    DTYPE: tl.constexpr = p_x0.dtype.element_ty
    b_branch = tl.zeros((BM, BN), dtype=tl.float32) if MASKED else b_y
    b_branch = add_branch(b_branch, p_s, p_v, o_m, o_n, M, N, stride_vr, R, RP, 1, STRIDE_SM, PARTS, UP, RC, DTYPE)
    if MASKED:
        b_y += tl.where(load_keeps(p_mask, o_m, o_m < M, i_n * BN // 8, BYTES, BM, BN), b_branch, 0.0)
    else:
        b_y = b_branch
    p_out = p_y + o_m.to(tl.int64)[:, None] * N + o_n[None, :]
    tl.store(p_out, down(b_y, p_y.dtype.element_ty, UP), mask=(o_m < M)[:, None] & (o_n < N)[None, :])


@triton.jit
def gemm_sum_tma_kernel(
    d_y, d_x0, d_w0, d_x1, d_w1, d_x2, d_w2, p_s, p_v, p_mask,
    M, N, K0, K1, K2, stride_vr, BYTES,
    R: tl.constexpr, RP: tl.constexpr, STRIDE_SM: tl.constexpr, PARTS: tl.constexpr, MASKED: tl.constexpr,
    COUNT: tl.constexpr, W_ROWS_ARE_N: tl.constexpr, PDL: tl.constexpr, UP: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, PROGRAMS: tl.constexpr,
):  # fmt: skip
    """Grid (PROGRAMS,), as many as the SMs hold at a time.

    Descriptors: d_xi of X_i (M, Ki) in blocks (BM, BK); d_wi of W_i (N, Ki) in blocks (BN, BK) where W_ROWS_ARE_N, else
    of its transpose in blocks (BK, BN); d_y of Y (M, N) in blocks (BM, BN // 2). The pointers are gemm_sum_kernel's.
    """
    DTYPE: tl.constexpr = d_y.dtype
    tiles = tl.cdiv(M, BM) * tl.cdiv(N, BN)
    for tile in tl.range(tl.program_id(0), tiles, PROGRAMS, flatten=False):
        i_m, i_n = grouped_tile(tile, M, N, BM, BN, GROUP)
        b_y = tl.zeros((BM, BN), dtype=tl.float32)
        b_y = add_product_tma(b_y, d_x0, d_w0, i_m * BM, i_n * BN, K0, W_ROWS_ARE_N, UP, BK)
        b_y = add_product_tma(b_y, d_x1, d_w1, i_m * BM, i_n * BN, K1, W_ROWS_ARE_N, UP, BK)
        if COUNT > 2:
            b_y = add_product_tma(b_y, d_x2, d_w2, i_m * BM, i_n * BN, K2, W_ROWS_ARE_N, UP, BK)
        follow(PDL)
        if not MASKED:
            o_m = i_m * BM + tl.arange(0, BM)
            o_n = i_n * BN + tl.arange(0, BN)
            b_y = add_branch(b_y, p_s, p_v, o_m, o_n, M, N, stride_vr, R, RP, 1, STRIDE_SM, PARTS, UP, RP, DTYPE)
        b_left, b_right = tl.split(tl.permute(tl.reshape(b_y, (BM, 2, BN // 2)), (0, 2, 1)))
        finish_half(
            b_left, d_y, p_s, p_v, None, p_mask, i_m * BM, i_n * BN, M, N, stride_vr, BYTES,
            R, RP, 1, STRIDE_SM, PARTS, False, MASKED, UP, DTYPE, BM, BN // 2,
        )  # fmt: skip
        finish_half(
            b_right, d_y, p_s, p_v, None, p_mask, i_m * BM, i_n * BN + BN // 2, M, N, stride_vr, BYTES,
            R, RP, 1, STRIDE_SM, PARTS, False, MASKED, UP, DTYPE, BM, BN // 2,
        )  # fmt: skip


def gemm_sum_launch(
    m: int, n: int, ks: list[int], rank: int, tile: Any, *,
    tma: bool, strides_xm: list[int], strides_wk: list[int], strides_wn: list[int], stride_sm: int, parts: int,
    masked: bool, pdl: bool, arch: int, programs: int, dtype: torch.dtype, keep: bool,
) -> Any:  # fmt: skip
    """run(xs, ws, s, v, mask, y): y (m, n) = sum of x_i (m, k_i) times its weight + s v, by one launch.

    weights are (k_i, n) of these strides, all in one layout by TMA; v (rank, n) is contiguous. 2 to MOST products.
    """
    count = len(ks)
    third = [0] * (MOST - count)
    names = range(MOST)
    sizes = {"M": m, "N": n} | {f"K{i}": k for i, k in zip(names, [*ks, *third], strict=True)}
    last = {"stride_vr": n, "BYTES": mask_bytes(n) if masked else 0}
    up_ = launch.interpreting() and dtype == torch.bfloat16
    shared = {"R": rank, "RP": padded(rank), "STRIDE_SM": stride_sm, "PARTS": parts, "MASKED": masked}
    blocks = {"BM": tile.bm, "BN": tile.bn, "BK": tile.bk, "GROUP": 8}
    tiles = triton.cdiv(m, tile.bm) * triton.cdiv(n, tile.bn)
    options: dict[str, Any] = {"warps": tile.warps, "stages": tile.stages, "pdl": pdl, "keep": keep}
    if tma:
        programs = min(programs, tiles)
        rows_are_n = strides_wk[0] == 1
        layouts = {"d_y": Layout((m, n), (n, 1), (tile.bm, tile.bn // 2))}
        for i in range(count):
            layouts[f"d_x{i}"] = Layout((m, ks[i]), (strides_xm[i], 1), (tile.bm, tile.bk))
            layouts[f"d_w{i}"] = (
                Layout((n, ks[i]), (strides_wn[i], 1), (tile.bn, tile.bk))
                if rows_are_n
                else Layout((ks[i], n), (strides_wk[i], 1), (tile.bk, tile.bn))
            )
        constants = {**shared, "COUNT": count, "W_ROWS_ARE_N": rows_are_n, "PDL": pdl, "UP": up_, **blocks,
                     "PROGRAMS": programs}  # fmt: skip
        start = launch.Launch(
            gemm_sum_tma_kernel, (programs, 1, 1), sizes=sizes | last, constants=constants, layouts=layouts, **options
        )
    else:
        for name, values in (("stride_xm", strides_xm), ("stride_wk", strides_wk), ("stride_wn", strides_wn)):
            sizes |= {f"{name}{i}": stride for i, stride in zip(names, [*values, *third], strict=True)}
        constants = {**shared, "EVEN_K": all(k % tile.bk == 0 for k in ks), "COUNT": count, "PDL": pdl, "UP": up_,
                     "RC": rank_chunk(rank, arch), **blocks}  # fmt: skip
        start = launch.Launch(gemm_sum_kernel, (tiles, 1, 1), sizes=sizes | last, constants=constants, **options)
    p = "d" if tma else "p"

    def run(xs: Any, ws: Any, s: torch.Tensor, v: torch.Tensor, mask: Any, y: torch.Tensor) -> None:
        absent = (None,) * (MOST - count)
        operands = {f"{p}_x{i}": x for i, x in zip(names, (*xs, *absent), strict=True)}
        operands |= {f"{p}_w{i}": w for i, w in zip(names, (*ws, *absent), strict=True)}
        start(**operands, p_s=s, p_v=v, p_mask=mask, **{f"{p}_y": y})

    return run
