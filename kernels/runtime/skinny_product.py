"""Skinny products O = L^T R over the tokens, and the reduction of their addends.

LoRA's dA^T = dS'^T drop(X) and dB^T = S'^T dY, and PaCA's dP^T = x_idx^T dY, are one kernel: L (M, r) is small, R
(M, C) is streamed once. Splitting M leaves fp32 addends, which one launch sums for both of LoRA's gradients.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from . import launch
from .jit_helpers import down, follow, high_part, join_parts, load_keeps, load_sum, low_part, up
from .sizes import mask_bytes, padded


@triton.jit
def skinny_kernel(
    p_l, p_index, p_t, p_mask, p_out, scale,
    M, C, stride_lm, stride_tm, stride_oc, stride_or, BYTES,
    R: tl.constexpr, RP: tl.constexpr, L_PARTS: tl.constexpr, STRIDE_L: tl.constexpr, GATHER: tl.constexpr,
    MASKED: tl.constexpr, WIDE: tl.constexpr, DIRECT: tl.constexpr, PARTS: tl.constexpr, EVEN_C: tl.constexpr,
    PDL: tl.constexpr, AHEAD: tl.constexpr, UP: tl.constexpr, BM: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """Grid (cdiv(C, BC), PARTS): a block owns BC columns of R and its share of the rows.

    p_l (L_PARTS, M, STRIDE_L), or with GATHER x (M, K) of row stride stride_lm, read at columns p_index (R,);
    p_t (M, C) the streamed factor, p_mask (M, BYTES) its packed keeps. DIRECT (PARTS is 1): p_out is the result,
    element (c, r) at c * stride_oc + r * stride_or, times scale; else p_out (PARTS, RP, C) fp32 addends.
    WIDE: p_l is fp32 beside an fp16 p_t, and keeps its range. AHEAD: the kernel ahead writes nothing that this one
    reads, and the product runs beside it.
    """
    follow(PDL and not AHEAD)
    i_c = tl.program_id(0)
    i_part = tl.program_id(1)
    o_c = i_c * BC + tl.arange(0, BC)
    o_r = tl.arange(0, RP)
    m_c = o_c < C
    m_r = o_r < R
    DTYPE: tl.constexpr = p_t.dtype.element_ty
    if GATHER:
        o_l = tl.load(p_index + o_r, mask=m_r, other=0).to(tl.int64)
    steps = tl.cdiv(tl.cdiv(M, BM), PARTS)
    m_begin = i_part * steps * BM
    b_o = tl.zeros((RP, BC), dtype=tl.float32)
    if WIDE:
        b_low = tl.zeros((RP, BC), dtype=tl.float32)
    for m in range(m_begin, tl.minimum(m_begin + steps * BM, M), BM):
        o_m = m + tl.arange(0, BM)
        m_m = o_m < M
        m_l = m_r[:, None] & m_m[None, :]
        if GATHER:
            b_l = tl.load(p_l + o_m.to(tl.int64)[None, :] * stride_lm + o_l[:, None], mask=m_l, other=0.0)
        else:
            b_l = load_sum(p_l, o_m[None, :], o_r[:, None], M, m_l, L_PARTS, STRIDE_L, UP)
        if not WIDE:
            b_l = up(down(b_l.to(tl.float32), DTYPE, UP), UP)
        p_tt = p_t + o_m.to(tl.int64)[:, None] * stride_tm + o_c[None, :]
        if EVEN_C:
            b_t = tl.load(p_tt, mask=m_m[:, None], other=0.0)
        else:
            b_t = tl.load(p_tt, mask=m_m[:, None] & m_c[None, :], other=0.0)
        if MASKED:
            b_t = tl.where(load_keeps(p_mask, o_m, m_m, i_c * (BC // 8), BYTES, BM, BC), b_t, tl.zeros_like(b_t))
        if WIDE:
            b_o = tl.dot(high_part(b_l), b_t, b_o)
            b_low = tl.dot(low_part(b_l), b_t, b_low)
        else:
            b_o = tl.dot(b_l, up(b_t, UP), b_o, input_precision="ieee")
    if WIDE:
        b_o = join_parts(b_o, b_low)
    follow(PDL and AHEAD)
    if DIRECT:
        p_ot = p_out + o_c.to(tl.int64)[None, :] * stride_oc + o_r.to(tl.int64)[:, None] * stride_or
        tl.store(p_ot, down(b_o * scale, p_out.dtype.element_ty, UP), mask=m_r[:, None] & m_c[None, :])
    else:
        p_ot = p_out + (i_part.to(tl.int64) * RP + o_r)[:, None] * C + o_c[None, :]
        tl.store(p_ot, b_o, mask=m_c[None, :])


@triton.jit
def reduce_kernel(
    p_left, p_left_out, p_right, p_right_out, scale,
    left_parts, left_columns, right_parts, right_columns, left_blocks,
    R: tl.constexpr, RP: tl.constexpr, LEFT: tl.constexpr, RIGHT: tl.constexpr, PDL: tl.constexpr, UP: tl.constexpr,
    BC: tl.constexpr,
):  # fmt: skip
    """Sums addends (parts, RP, columns) fp32 into `left` (columns, R) and `right` (R, columns), in one launch.

    The first left_blocks programs work on left (dB, or dP), the others on right (dA); LEFT, RIGHT: which there are.
    """
    follow(PDL)
    i_c = tl.program_id(0)
    if RIGHT:
        if LEFT:
            if i_c < left_blocks:
                _sum_parts(p_left, p_left_out, i_c, left_parts, left_columns, R, 1, scale, R, RP, UP, BC)
            else:
                i_right = i_c - left_blocks
                _sum_parts(
                    p_right, p_right_out, i_right, right_parts, right_columns, 1, right_columns, scale, R, RP, UP, BC
                )
        else:
            _sum_parts(p_right, p_right_out, i_c, right_parts, right_columns, 1, right_columns, scale, R, RP, UP, BC)
    else:
        _sum_parts(p_left, p_left_out, i_c, left_parts, left_columns, R, 1, scale, R, RP, UP, BC)


@triton.jit
def _sum_parts(
    p_in, p_out, i_c, parts, columns, stride_oc, stride_or, scale,
    R: tl.constexpr, RP: tl.constexpr, UP: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """One block of columns: element (c, r) of the result at c * stride_oc + r * stride_or."""
    o_r = tl.arange(0, RP)
    o_c = i_c * BC + tl.arange(0, BC)
    m_o = (o_r < R)[:, None] & (o_c < columns)[None, :]
    b_o = tl.zeros((RP, BC), dtype=tl.float32)
    p_part = p_in + o_r.to(tl.int64)[:, None] * columns + o_c[None, :]
    for _ in range(parts):
        b_o += tl.load(p_part, mask=m_o, other=0.0)
        p_part += RP * columns
    p_o = p_out + o_c.to(tl.int64)[None, :] * stride_oc + o_r.to(tl.int64)[:, None] * stride_or
    tl.store(p_o, down(b_o * scale, p_out.dtype.element_ty, UP), mask=m_o)


def skinny_launch(
    m: int, c: int, rank: int, tile: Any, *,
    l_parts: int = 1, stride_l: int, stride_lm: int = 0, stride_tm: int, gather: bool = False, masked: bool = False,
    wide: bool = False, parts: int = 1, direct: bool = False, pdl: bool = False, ahead: bool = False,
    dtype: torch.dtype, keep: bool = True,
) -> launch.Launch:  # fmt: skip
    """The launch for one shape; tile has bm, bn (columns), warps, stages. direct writes the result (c, rank)."""
    if direct and parts != 1:
        raise ValueError(f"parts is {parts}, expected 1 where the result is written directly")
    sizes = {
        "M": m, "C": c, "stride_lm": stride_lm, "stride_tm": stride_tm, "stride_oc": rank if direct else 0,
        "stride_or": 1 if direct else 0, "BYTES": mask_bytes(c) if masked else 0,
    }  # fmt: skip
    constants = {
        "R": rank, "RP": padded(rank), "L_PARTS": l_parts, "STRIDE_L": stride_l, "GATHER": gather,
        "MASKED": masked, "WIDE": wide, "DIRECT": direct, "PARTS": parts, "EVEN_C": c % tile.bn == 0,
        "PDL": pdl, "AHEAD": pdl and ahead,
        "UP": launch.interpreting() and dtype == torch.bfloat16, "BM": tile.bm, "BC": tile.bn,
    }  # fmt: skip
    grid = (triton.cdiv(c, tile.bn), parts, 1)
    return launch.Launch(
        skinny_kernel, grid, sizes=sizes, constants=constants, warps=tile.warps, stages=tile.stages, pdl=pdl, keep=keep
    )


def reduce_launch(
    rank: int,
    *,
    left: tuple[int, int] = (0, 0),
    right: tuple[int, int] = (0, 0),
    width: int | None = None,
    pdl: bool = False,
    dtype: torch.dtype,
) -> launch.Launch:
    """The launch that sums up to two sets of addends, each given as (columns, parts); a set of 0 columns is absent.

    width: rows of the addends, where they are not those of the padded rank.
    """
    block = 128
    left_blocks, right_blocks = triton.cdiv(left[0], block), triton.cdiv(right[0], block)
    sizes = {
        "left_parts": left[1], "left_columns": left[0], "right_parts": right[1], "right_columns": right[0],
        "left_blocks": left_blocks,
    }  # fmt: skip
    # UP by the dtype written: the interpreter's cast to bf16 needs help even where the addends are fp32.
    constants = {
        "R": rank, "RP": width or padded(rank), "LEFT": left_blocks > 0, "RIGHT": right_blocks > 0, "PDL": pdl,
        "UP": launch.interpreting() and dtype == torch.bfloat16, "BC": block,
    }  # fmt: skip
    grid = (left_blocks + right_blocks, 1, 1)
    return launch.Launch(reduce_kernel, grid, sizes=sizes, constants=constants, warps=4, stages=2, pdl=pdl)
