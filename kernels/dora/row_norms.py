"""Squared norms of the rows of W + s B A in one pass over W, of which no (N, K) tensor is made.

W is read once and nothing of its size is written: N K values, 10 us of a 4096 x 4096 in 16 bits at 3.35 TB/s (model).
The 2 N K r FLOPs of B A, r per byte, are far below what tensor cores do in that time; A is read again for every 64
rows, from L2. PEFT makes B A, s B A and the sum as tensors of W's size, and reads or writes W's size some seven times.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from ..runtime import launch
from ..runtime.jit_helpers import follow, up
from ..runtime.sizes import padded


@triton.jit
def row_norms_kernel(
    p_w, p_a, p_b, p_squares, scale,
    N, K, stride_wn, stride_wk,
    R: tl.constexpr, RP: tl.constexpr, PARTS: tl.constexpr, EVEN: tl.constexpr, PDL: tl.constexpr, UP: tl.constexpr,
    BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Grid (cdiv(N, BN), PARTS). Part i sums the squares over its share of K into squares[i].

    p_w (N, K) by its strides, of which one is 1, p_a (R, K), p_b (N, R), p_squares (PARTS, N) fp32. A and B are rounded
    to W's dtype, as the branch reads them.
    """
    follow(PDL)
    i_n = tl.program_id(0)
    i_part = tl.program_id(1)
    o_n = i_n * BN + tl.arange(0, BN)
    o_r = tl.arange(0, RP)
    m_n = o_n < N
    m_r = o_r < R
    DTYPE: tl.constexpr = p_w.dtype.element_ty
    b_b = tl.load(p_b + o_n.to(tl.int64)[:, None] * R + o_r[None, :], mask=m_n[:, None] & m_r[None, :], other=0.0)
    b_b = up(b_b, UP) if UP else b_b.to(DTYPE)
    p_row = p_w + o_n.to(tl.int64)[:, None] * stride_wn
    steps = tl.cdiv(tl.cdiv(K, BK), PARTS)
    k_begin = i_part * steps * BK
    b_sum = tl.zeros((BN, BK), dtype=tl.float32)
    for k in range(k_begin, tl.minimum(k_begin + steps * BK, K), BK):
        o_k = k + tl.arange(0, BK)
        if EVEN:
            b_w = tl.load(p_row + o_k.to(tl.int64)[None, :] * stride_wk)
            b_a = tl.load(p_a + o_r[:, None] * K + o_k[None, :], mask=m_r[:, None], other=0.0)
        else:
            m_k = o_k < K
            p_tile = p_row + o_k.to(tl.int64)[None, :] * stride_wk
            b_w = tl.load(p_tile, mask=m_n[:, None] & m_k[None, :], other=0.0)
            b_a = tl.load(p_a + o_r[:, None] * K + o_k[None, :], mask=m_r[:, None] & m_k[None, :], other=0.0)
        b_a = up(b_a, UP) if UP else b_a.to(DTYPE)
        b_whole = b_w.to(tl.float32) + scale * tl.dot(b_b, b_a, input_precision="ieee")
        b_sum += b_whole * b_whole
    tl.store(p_squares + i_part.to(tl.int64) * N + o_n, tl.sum(b_sum, 1), mask=m_n)


def row_norms_launch(
    n: int, k: int, rank: int, tile: Any, *,
    stride_wn: int, stride_wk: int, parts: int, pdl: bool = False, dtype: torch.dtype, keep: bool = True,
) -> launch.Launch:  # fmt: skip
    """The launch for one shape; tile has bm (rows of W), bk, warps, stages."""
    sizes = {"N": n, "K": k, "stride_wn": stride_wn, "stride_wk": stride_wk}
    constants = {
        "R": rank, "RP": padded(rank), "PARTS": parts,
        "EVEN": n % tile.bm == 0 and k % (tile.bk * parts) == 0, "PDL": pdl,
        "UP": launch.interpreting() and dtype == torch.bfloat16, "BN": tile.bm, "BK": tile.bk,
    }  # fmt: skip
    grid = (triton.cdiv(n, tile.bm), parts, 1)
    return launch.Launch(
        row_norms_kernel, grid, sizes=sizes, constants=constants, warps=tile.warps, stages=tile.stages, pdl=pdl,
        keep=keep,
    )  # fmt: skip
