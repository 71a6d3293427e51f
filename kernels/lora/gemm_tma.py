"""The GEMM of the epilogue_tma schemes: persistent programs, whose tiles TMA moves.

The branch comes last and the tile loop is not flattened: flattened, with the branch first, every step waits for its own
copy, and under triton 3.6 so does the other order. The accumulator leaves in two halves, each by a store of its own,
which halves the shared memory that the store needs and pays for a fourth stage. Under a mask each half takes a branch
of its own, since that of a whole tile does not fit in registers beside the accumulator (128x256).
"""

from typing import Any

import torch
import triton
import triton.language as tl

from ..runtime import launch
from ..runtime.jit_helpers import down, follow, load_keeps, up
from ..runtime.sizes import mask_bytes, padded
from ..runtime.tensor_maps import Layout
from .gemm import add_branch, grouped_tile


@triton.jit
def gemm_tma_kernel(
    d_x, d_w, d_y, p_s, p_v, p_bias, p_mask,
    M, N, K, stride_vr, BYTES,
    R: tl.constexpr, RP: tl.constexpr, STRIDE_VN: tl.constexpr, STRIDE_SM: tl.constexpr, PARTS: tl.constexpr,
    BIAS: tl.constexpr, MASKED: tl.constexpr, W_ROWS_ARE_N: tl.constexpr, PDL: tl.constexpr, UP: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr, PROGRAMS: tl.constexpr,
):  # fmt: skip
    """Grid (PROGRAMS,), as many as the SMs hold at a time.

    Descriptors: d_x of X (M, K) in blocks (BM, BK); d_w of W (N, K) in blocks (BN, BK) where W_ROWS_ARE_N, else of its
    transpose in blocks (BK, BN); d_y of Y (M, N) in blocks (BM, BN // 2). The pointers are those of gemm_kernel, the
    mask among them. PDL: the kernel ahead writes neither X nor W.
    """
    DTYPE: tl.constexpr = d_y.dtype
    tiles = tl.cdiv(M, BM) * tl.cdiv(N, BN)
    for tile in tl.range(tl.program_id(0), tiles, PROGRAMS, flatten=False):
        i_m, i_n = grouped_tile(tile, M, N, BM, BN, GROUP)
        b_y = tl.zeros((BM, BN), dtype=tl.float32)
        b_y = add_product_tma(b_y, d_x, d_w, i_m * BM, i_n * BN, K, W_ROWS_ARE_N, UP, BK)
        follow(PDL)
        if not MASKED:
            o_m = i_m * BM + tl.arange(0, BM)
            o_n = i_n * BN + tl.arange(0, BN)
            b_y = add_branch(
                b_y, p_s, p_v, o_m, o_n, M, N, stride_vr, R, RP, STRIDE_VN, STRIDE_SM, PARTS, UP, RP, DTYPE
            )
        b_left, b_right = tl.split(tl.permute(tl.reshape(b_y, (BM, 2, BN // 2)), (0, 2, 1)))
        finish_half(
            b_left, d_y, p_s, p_v, p_bias, p_mask, i_m * BM, i_n * BN, M, N, stride_vr, BYTES,
            R, RP, STRIDE_VN, STRIDE_SM, PARTS, BIAS, MASKED, UP, DTYPE, BM, BN // 2,
        )  # fmt: skip
        finish_half(
            b_right, d_y, p_s, p_v, p_bias, p_mask, i_m * BM, i_n * BN + BN // 2, M, N, stride_vr, BYTES,
            R, RP, STRIDE_VN, STRIDE_SM, PARTS, BIAS, MASKED, UP, DTYPE, BM, BN // 2,
        )  # fmt: skip


@triton.jit
def add_product_tma(b_y, d_x, d_w, m, n, K, W_ROWS_ARE_N: tl.constexpr, UP: tl.constexpr, BK: tl.constexpr):
    """b_y + X W on the tile that begins at row m and column n."""
    for i_k in range(tl.cdiv(K, BK)):
        b_x = d_x.load([m, i_k * BK])
        if W_ROWS_ARE_N:  # noqa: SIM108
            b_w = d_w.load([n, i_k * BK]).T
        else:
            b_w = d_w.load([i_k * BK, n])
        b_y = tl.dot(up(b_x, UP), up(b_w, UP), b_y, input_precision="ieee")
    return b_y


@triton.jit
def finish_half(
    b_y, d_y, p_s, p_v, p_bias, p_mask, m, n, M, N, stride_vr, BYTES,
    R: tl.constexpr, RP: tl.constexpr, STRIDE_VN: tl.constexpr, STRIDE_SM: tl.constexpr, PARTS: tl.constexpr,
    BIAS: tl.constexpr, MASKED: tl.constexpr, UP: tl.constexpr, DTYPE: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr,
):  # fmt: skip
    """Adds the branch where MASKED, and the bias, to (BM, BN) of the accumulator, which begin at row m and column n,
    and stores them.

    Only a masked branch is added here: added to half an accumulator without a mask, ptxas serialises the main loop on
    sm_90 (C7515, triton 3.6.0 and 3.7.1).
    """
    o_n = n + tl.arange(0, BN)
    if MASKED:
        o_m = m + tl.arange(0, BM)
        b_branch = add_branch(
            tl.zeros((BM, BN), dtype=tl.float32), p_s, p_v, o_m, o_n, M, N, stride_vr,
            R, RP, STRIDE_VN, STRIDE_SM, PARTS, UP, RP, DTYPE,
        )  # fmt: skip
        b_y += tl.where(load_keeps(p_mask, o_m, o_m < M, n // 8, BYTES, BM, BN), b_branch, 0.0)
    if BIAS:
        b_y += tl.load(p_bias + o_n, mask=o_n < N, other=0.0).to(tl.float32)[None, :]
    d_y.store([m, n], down(b_y, DTYPE, UP))


def gemm_tma_launch(
    m: int, n: int, k: int, rank: int, tile: Any, *,
    stride_xm: int, stride_wk: int, stride_wn: int, stride_vr: int, stride_vn: int, stride_sm: int, programs: int,
    parts: int = 1, bias: bool = False, masked: bool = False, pdl: bool = False, dtype: torch.dtype, keep: bool = True,
) -> launch.Launch:  # fmt: skip
    """The launch for one shape; tile has bm, bn, bk, warps, stages.

    d_x, d_w and d_y of a call are tensors: x (M, K), the weight in either layout, y (M, N), contiguous.
    """
    programs = min(programs, triton.cdiv(m, tile.bm) * triton.cdiv(n, tile.bn))
    rows_are_n = stride_wk == 1
    layouts = {
        "d_x": Layout((m, k), (stride_xm, 1), (tile.bm, tile.bk)),
        "d_w": Layout((n, k), (stride_wn, 1), (tile.bn, tile.bk)) if rows_are_n
        else Layout((k, n), (stride_wk, 1), (tile.bk, tile.bn)),
        "d_y": Layout((m, n), (n, 1), (tile.bm, tile.bn // 2)),
    }  # fmt: skip
    sizes = {"M": m, "N": n, "K": k, "stride_vr": stride_vr, "BYTES": mask_bytes(n) if masked else 0}
    constants = {
        "R": rank, "RP": padded(rank), "STRIDE_VN": stride_vn, "STRIDE_SM": stride_sm, "PARTS": parts, "BIAS": bias,
        "MASKED": masked, "W_ROWS_ARE_N": rows_are_n, "PDL": pdl,
        "UP": launch.interpreting() and dtype == torch.bfloat16,
        "BM": tile.bm, "BN": tile.bn, "BK": tile.bk, "GROUP": 8, "PROGRAMS": programs,
    }  # fmt: skip
    return launch.Launch(
        gemm_tma_kernel,
        (programs, 1, 1),
        sizes=sizes,
        constants=constants,
        warps=tile.warps,
        stages=tile.stages,
        pdl=pdl,
        keep=keep,
        layouts=layouts,
    )
