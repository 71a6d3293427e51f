"""y = g z + b and its backward, one pass each: what DoRA does beside LoRA's products, all of it bound by bandwidth.

Forward reads z and writes y, 4 bytes an element in 16 bits; backward reads dY and z and writes dz, 6. So 20 and 30 us
for 4096 x 4096 at 3.35 TB/s (model). In the GEMM's epilogue z would be written all the same, for backward, and 2 of the
10 bytes saved; it would be another GEMM kernel of each kind. g = m / norm is worked out again by every block, from the
addends of the norm that row_norms left: nobody has to be launched to sum them.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from ..runtime import launch
from ..runtime.jit_helpers import down, follow


@triton.jit
def magnitude_kernel(
    p_z, p_m, p_squares, p_bias, p_y,
    M, N,
    PARTS: tl.constexpr, PDL: tl.constexpr, UP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Grid (cdiv(M, BM), cdiv(N, BN)). p_z and p_y (M, N), p_m and p_bias (N,), p_squares (PARTS, N) fp32."""
    follow(PDL)
    o_m = tl.program_id(0) * BM + tl.arange(0, BM)
    o_n = tl.program_id(1) * BN + tl.arange(0, BN)
    m_n = o_n < N
    b_g = tl.load(p_m + o_n, mask=m_n, other=0.0).to(tl.float32) / _norms(p_squares, o_n, m_n, N, PARTS)
    o_mn = o_m.to(tl.int64)[:, None] * N + o_n[None, :]
    m_mn = (o_m < M)[:, None] & m_n[None, :]
    b_y = b_g[None, :] * tl.load(p_z + o_mn, mask=m_mn, other=0.0).to(tl.float32)
    if p_bias is not None:
        b_y += tl.load(p_bias + o_n, mask=m_n, other=0.0).to(tl.float32)[None, :]
    tl.store(p_y + o_mn, down(b_y, p_y.dtype.element_ty, UP), mask=m_mn)


@triton.jit
def magnitude_gradient_kernel(
    p_dy, p_z, p_m, p_squares, p_dz, p_dm,
    M, N, stride_dm,
    SQUARES: tl.constexpr, PARTS: tl.constexpr, PDL: tl.constexpr, UP: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr,
):  # fmt: skip
    """Grid (cdiv(N, BN), PARTS): a block owns BN columns and its share of the rows.

    p_dy (M, N) of row stride stride_dm, p_z (M, N), p_m (N,), p_squares (SQUARES, N) fp32. Leaves p_dz (M, N) = g dY,
    and p_dm (PARTS, N) fp32, the addends of dm = sum over the rows of dY z / norm. p_dz or p_dm may be None.
    """
    follow(PDL)
    i_n = tl.program_id(0)
    i_part = tl.program_id(1)
    o_n = i_n * BN + tl.arange(0, BN)
    m_n = o_n < N
    b_norm = _norms(p_squares, o_n, m_n, N, SQUARES)
    b_g = tl.load(p_m + o_n, mask=m_n, other=0.0).to(tl.float32) / b_norm
    steps = tl.cdiv(tl.cdiv(M, BM), PARTS)
    m_begin = i_part * steps * BM
    b_sum = tl.zeros((BM, BN), dtype=tl.float32)
    for m in range(m_begin, tl.minimum(m_begin + steps * BM, M), BM):
        o_m = m + tl.arange(0, BM)
        m_mn = (o_m < M)[:, None] & m_n[None, :]
        b_dy = tl.load(p_dy + o_m.to(tl.int64)[:, None] * stride_dm + o_n[None, :], mask=m_mn, other=0.0)
        b_dy = b_dy.to(tl.float32)
        o_mn = o_m.to(tl.int64)[:, None] * N + o_n[None, :]
        if p_dz is not None:
            tl.store(p_dz + o_mn, down(b_g[None, :] * b_dy, p_dz.dtype.element_ty, UP), mask=m_mn)
        if p_dm is not None:
            b_sum += b_dy * tl.load(p_z + o_mn, mask=m_mn, other=0.0).to(tl.float32)
    if p_dm is not None:
        tl.store(p_dm + i_part.to(tl.int64) * N + o_n, tl.sum(b_sum, 0) / b_norm, mask=m_n)


@triton.jit
def _norms(p_squares, o_n, m_n, N, PARTS: tl.constexpr):
    """The norms at o_n; 1 beyond N."""
    b_square = tl.load(p_squares + o_n, mask=m_n, other=1.0)
    for part in tl.static_range(1, PARTS):
        b_square += tl.load(p_squares + part * N + o_n, mask=m_n, other=0.0)
    return tl.sqrt(b_square)


def magnitude_launch(
    m: int, n: int, tile: Any, *, parts: int, pdl: bool = False, dtype: torch.dtype, keep: bool = True
) -> launch.Launch:  # fmt: skip
    """The launch of y; tile has bm, bn, warps, stages. parts: of the squares."""
    constants = {
        "PARTS": parts, "PDL": pdl, "UP": launch.interpreting() and dtype == torch.bfloat16,
        "BM": tile.bm, "BN": tile.bn,
    }  # fmt: skip
    grid = (triton.cdiv(m, tile.bm), triton.cdiv(n, tile.bn), 1)
    return launch.Launch(
        magnitude_kernel, grid, sizes={"M": m, "N": n}, constants=constants, warps=tile.warps, stages=tile.stages,
        pdl=pdl, keep=keep,
    )  # fmt: skip


def magnitude_gradient_launch(
    m: int, n: int, tile: Any, *,
    stride_dm: int, squares: int, parts: int, pdl: bool = False, dtype: torch.dtype, keep: bool = True,
) -> launch.Launch:  # fmt: skip
    """The launch of dz and the addends of dm; tile has bm, bn, warps, stages. squares: parts of the squares."""
    constants = {
        "SQUARES": squares, "PARTS": parts, "PDL": pdl, "UP": launch.interpreting() and dtype == torch.bfloat16,
        "BM": tile.bm, "BN": tile.bn,
    }  # fmt: skip
    grid = (triton.cdiv(n, tile.bn), parts, 1)
    return launch.Launch(
        magnitude_gradient_kernel, grid, sizes={"M": m, "N": n, "stride_dm": stride_dm}, constants=constants,
        warps=tile.warps, stages=tile.stages, pdl=pdl, keep=keep,
    )  # fmt: skip
