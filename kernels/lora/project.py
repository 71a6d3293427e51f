"""The S kernel: S' = scale * drop(X) A^T, (M, r padded to RP), in one pass over X.

It also draws the dropout mask, once, and leaves it as packed bits for dX and dA; and it can copy X beside S' for the
bordered scheme. dS' = scale * dY B is the same product, with B^T in A's place.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from ..runtime import launch
from ..runtime.jit_helpers import down, draw_keeps, follow, high_part, join_parts, low_part, spread_bits, up
from ..runtime.sizes import mask_bytes, padded


@triton.jit(do_not_specialize=["seed"])
def project_kernel(
    p_x, p_a, p_s, p_mask, p_seed, seed: tl.int64, scale, threshold,
    M, K, stride_xm, stride_ar, stride_sm, BYTES,
    R: tl.constexpr, RP: tl.constexpr, STRIDE_AK: tl.constexpr, PARTS: tl.constexpr,
    DROPOUT: tl.constexpr, COPY: tl.constexpr, WIDE: tl.constexpr, EVEN_K: tl.constexpr, PDL: tl.constexpr,
    UP: tl.constexpr, BM: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Grid (cdiv(M, BM), PARTS). Part i sums its share of K into S'[i].

    p_x (M, K), p_a element (r, k) at r * stride_ar + k * STRIDE_AK, p_s (PARTS, M, stride_sm), p_mask (M, BYTES) uint8.
    The mask is drawn from seed plus that at p_seed (1,) int64.
    COPY: p_s is the buffer (M, stride_sm) of the bordered scheme, whose first K columns receive X.
    WIDE: p_a is fp32 beside an fp16 x, and keeps its range.
    """
    follow(PDL)
    i_m = tl.program_id(0)
    i_part = tl.program_id(1)
    o_m = i_m * BM + tl.arange(0, BM)
    o_r = tl.arange(0, RP)
    m_m = o_m < M
    p_row = p_x + o_m.to(tl.int64)[:, None] * stride_xm
    steps = tl.cdiv(tl.cdiv(K, BK), PARTS)
    k_begin = i_part * steps * BK
    if DROPOUT:
        seed += tl.load(p_seed)
    b_s = tl.zeros((BM, RP), dtype=tl.float32)
    if WIDE:
        b_low = tl.zeros((BM, RP), dtype=tl.float32)
    for k in range(k_begin, tl.minimum(k_begin + steps * BK, K), BK):
        o_k = k + tl.arange(0, BK)
        m_k = o_k < K
        if EVEN_K:
            b_x = tl.load(p_row + o_k[None, :], mask=m_m[:, None], other=0.0)
            b_a = tl.load(p_a + o_r[None, :] * stride_ar + o_k[:, None] * STRIDE_AK, mask=(o_r < R)[None, :], other=0.0)
        else:
            b_x = tl.load(p_row + o_k[None, :], mask=m_m[:, None] & m_k[None, :], other=0.0)
            m_a = m_k[:, None] & (o_r < R)[None, :]
            b_a = tl.load(p_a + o_r[None, :] * stride_ar + o_k[:, None] * STRIDE_AK, mask=m_a, other=0.0)
        if COPY:
            p_copy = p_s + o_m.to(tl.int64)[:, None] * stride_sm + o_k[None, :]
            tl.store(p_copy, b_x, mask=m_m[:, None] & m_k[None, :])
        if DROPOUT:
            o_byte = k // 8 + tl.arange(0, BK // 8)
            b_byte = draw_keeps(seed, o_m[:, None] * BYTES + o_byte[None, :], threshold)
            p_byte = p_mask + o_m.to(tl.int64)[:, None] * BYTES + o_byte[None, :]
            tl.store(p_byte, b_byte.to(tl.uint8), mask=m_m[:, None] & (o_byte < BYTES)[None, :])
            b_x = tl.where(spread_bits(b_byte, BM, BK), b_x, tl.zeros_like(b_x))
        if WIDE:
            b_s = tl.dot(b_x, high_part(b_a), b_s)
            b_low = tl.dot(b_x, low_part(b_a), b_low)
        else:
            b_s = tl.dot(up(b_x, UP), up(b_a, UP).to(up(b_x, UP).dtype), b_s, input_precision="ieee")
    if WIDE:
        b_s = join_parts(b_s, b_low)
    p_out = p_s + (i_part.to(tl.int64) * M + o_m)[:, None] * stride_sm + o_r[None, :]
    if COPY:
        p_out += K
    tl.store(p_out, down(b_s * scale, p_s.dtype.element_ty, UP), mask=m_m[:, None])


def project_launch(
    m: int, k: int, rank: int, tile: Any, *,
    stride_xm: int, stride_ar: int, stride_ak: int = 1, parts: int = 1, dropout: bool = False, copy: bool = False,
    wide: bool = False, pdl: bool = False, dtype: torch.dtype, keep: bool = True,
) -> launch.Launch:  # fmt: skip
    """The launch of S' for one shape; tile has bm, bk, warps, stages."""
    sizes = {
        "M": m, "K": k, "stride_xm": stride_xm, "stride_ar": stride_ar,
        "stride_sm": padded(rank) + (k if copy else 0), "BYTES": mask_bytes(k) if dropout else 0,
    }  # fmt: skip
    constants = {
        "R": rank, "RP": padded(rank), "STRIDE_AK": stride_ak, "PARTS": parts,
        "DROPOUT": dropout, "COPY": copy, "WIDE": wide, "EVEN_K": k % (tile.bk * parts) == 0, "PDL": pdl,
        "UP": launch.interpreting() and dtype == torch.bfloat16,
        "BM": tile.bm, "BK": tile.bk,
    }  # fmt: skip
    grid = (triton.cdiv(m, tile.bm), parts, 1)
    return launch.Launch(
        project_kernel, grid, sizes=sizes, constants=constants, warps=tile.warps, stages=tile.stages, pdl=pdl, keep=keep
    )
