"""dS' = scale * dY B and dB^T = S'^T dY in one pass over dY; where a block owns whole rows, dA in the same launch.

Everything a block cannot finish alone it leaves as fp32 addends, which the reader (dS') or one reduction (dA and dB)
sums. A launch that zeroes buffers for atomics and one that casts them costs more than the reduction, and addends give
the same bits every time: deterministic mode is the only mode.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from ..runtime import launch
from ..runtime.jit_helpers import down, follow, high_part, join_parts, load_keeps, load_sum, low_part, up
from ..runtime.sizes import mask_bytes, padded


@triton.jit
def branch_gradients_kernel(
    p_dy, p_b, p_s, p_x, p_mask, p_ds, p_db, p_da, scale,
    M, N, K, stride_dm, stride_xm, BYTES,
    R: tl.constexpr, RP: tl.constexpr, S_PARTS: tl.constexpr, STRIDE_SM: tl.constexpr, STRIDE_DS: tl.constexpr,
    PARTS: tl.constexpr, WITH_DA: tl.constexpr, MASKED: tl.constexpr, WIDE: tl.constexpr, EVEN_N: tl.constexpr,
    EVEN_K: tl.constexpr, PDL: tl.constexpr, UP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Grid (cdiv(M, BM), PARTS): a block owns BM rows and its share of dY's columns.

    p_dy (M, N), p_b (N, R), p_s (S_PARTS, M, STRIDE_SM); leaves p_ds (PARTS, M, STRIDE_DS)
    and p_db (cdiv(M, BM), RP, N) fp32.
    WITH_DA (PARTS is 1): also p_da (cdiv(M, BM), RP, K) fp32 = dS'^T drop(X), from p_x (M, K) and p_mask (M, BYTES).
    WIDE: p_b is fp32 beside an fp16 dY, and with dS' keeps its range in both products; p_ds is fp32.
    """
    follow(PDL)
    i_m = tl.program_id(0)
    i_part = tl.program_id(1)
    o_m = i_m * BM + tl.arange(0, BM)
    o_r = tl.arange(0, RP)
    m_m = o_m < M
    m_r = o_r < R
    DTYPE: tl.constexpr = p_dy.dtype.element_ty
    # S' is read transposed: tl.trans(dY) would make dY's load a plain one on sm_8x.
    b_st = load_sum(p_s, o_m[None, :], o_r[:, None], M, m_r[:, None] & m_m[None, :], S_PARTS, STRIDE_SM, UP)
    b_st = up(down(b_st.to(tl.float32), DTYPE, UP), UP)
    p_row = p_dy + o_m.to(tl.int64)[:, None] * stride_dm
    steps = tl.cdiv(tl.cdiv(N, BN), PARTS)
    n_begin = i_part * steps * BN
    b_ds = tl.zeros((BM, RP), dtype=tl.float32)
    if WIDE:
        b_low = tl.zeros((BM, RP), dtype=tl.float32)
    for n in range(n_begin, tl.minimum(n_begin + steps * BN, N), BN):
        o_n = n + tl.arange(0, BN)
        if EVEN_N:
            b_dy = tl.load(p_row + o_n[None, :], mask=m_m[:, None], other=0.0)
            b_b = tl.load(p_b + o_n[:, None] * R + o_r[None, :], mask=m_r[None, :], other=0.0)
        else:
            m_n = o_n < N
            b_dy = tl.load(p_row + o_n[None, :], mask=m_m[:, None] & m_n[None, :], other=0.0)
            b_b = tl.load(p_b + o_n[:, None] * R + o_r[None, :], mask=m_n[:, None] & m_r[None, :], other=0.0)
        if WIDE:
            b_ds = tl.dot(b_dy, high_part(b_b), b_ds)
            b_low = tl.dot(b_dy, low_part(b_b), b_low)
        else:
            b_ds = tl.dot(up(b_dy, UP), up(b_b, UP).to(up(b_dy, UP).dtype), b_ds, input_precision="ieee")
        b_db = tl.dot(b_st, up(b_dy, UP), input_precision="ieee")
        p_addend = p_db + (i_m.to(tl.int64) * RP + o_r)[:, None] * N + o_n[None, :]
        if EVEN_N:
            tl.store(p_addend, b_db)
        else:
            tl.store(p_addend, b_db, mask=(o_n < N)[None, :])
    if WIDE:
        b_ds = join_parts(b_ds, b_low)
    b_ds = down(b_ds * scale, p_ds.dtype.element_ty, UP)
    # Only the rank's own columns: dS' may be a slice of a buffer that siblings share.
    p_out = p_ds + (i_part.to(tl.int64) * M + o_m)[:, None] * STRIDE_DS + o_r[None, :]
    tl.store(p_out, b_ds, mask=m_m[:, None] & m_r[None, :])
    if WITH_DA:
        b_dst = tl.trans(b_ds) if WIDE else up(tl.trans(b_ds), UP)
        p_xrow = p_x + o_m.to(tl.int64)[:, None] * stride_xm
        for k in range(0, K, BN):
            o_k = k + tl.arange(0, BN)
            if EVEN_K:
                b_x = tl.load(p_xrow + o_k[None, :], mask=m_m[:, None], other=0.0)
            else:
                b_x = tl.load(p_xrow + o_k[None, :], mask=m_m[:, None] & (o_k < K)[None, :], other=0.0)
            if MASKED:
                b_x = tl.where(load_keeps(p_mask, o_m, m_m, k // 8, BYTES, BM, BN), b_x, tl.zeros_like(b_x))
            if WIDE:
                b_da = join_parts(tl.dot(high_part(b_dst), b_x), tl.dot(low_part(b_dst), b_x))
            else:
                b_da = tl.dot(b_dst, up(b_x, UP), input_precision="ieee")
            p_da_addend = p_da + (i_m.to(tl.int64) * RP + o_r)[:, None] * K + o_k[None, :]
            tl.store(p_da_addend, b_da, mask=(o_k < K)[None, :])


def branch_gradients_launch(
    m: int, n: int, k: int, rank: int, tile: Any, *,
    stride_dm: int, stride_xm: int, s_parts: int, stride_sm: int, stride_ds: int | None = None, parts: int = 1,
    with_da: bool = False, masked: bool = False, wide: bool = False, pdl: bool = False, dtype: torch.dtype,
    keep: bool = True,
) -> launch.Launch:  # fmt: skip
    """The launch for one shape; tile has bm, bn, warps, stages."""
    if with_da and parts != 1:
        raise ValueError(f"parts is {parts}, expected 1 where a block owns whole rows")
    sizes = {
        "M": m, "N": n, "K": k, "stride_dm": stride_dm, "stride_xm": stride_xm, "BYTES": mask_bytes(k) if masked else 0,
    }  # fmt: skip
    constants = {
        "R": rank, "RP": padded(rank), "S_PARTS": s_parts, "STRIDE_SM": stride_sm,
        "STRIDE_DS": stride_ds or padded(rank), "PARTS": parts,
        "WITH_DA": with_da, "MASKED": masked, "WIDE": wide, "EVEN_N": n % (tile.bn * parts) == 0,
        "EVEN_K": k % tile.bn == 0, "PDL": pdl,
        "UP": launch.interpreting() and dtype == torch.bfloat16, "BM": tile.bm, "BN": tile.bn,
    }  # fmt: skip
    grid = (triton.cdiv(m, tile.bm), parts, 1)
    return launch.Launch(
        branch_gradients_kernel,
        grid,
        sizes=sizes,
        constants=constants,
        warps=tile.warps,
        stages=tile.stages,
        pdl=pdl,
        keep=keep,
    )
