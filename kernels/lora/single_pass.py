"""The scheme single_pass: Y = X W^T + scale * (X A^T) B^T in one kernel, S accumulated beside the main product.

One launch and no second pass over X, for max(r, 16) / BN more tensor-core work: for small layers and launch-bound
models. Without dropout only: every column of tiles would have to draw the mask again.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from ..runtime import launch
from ..runtime.jit_helpers import down, follow, up
from ..runtime.sizes import padded
from .gemm import grouped_tile


@triton.jit
def single_pass_kernel(
    p_x, p_w, p_a, p_b, p_bias, p_s, p_y, scale,
    M, N, K, stride_xm, stride_wk, stride_wn, stride_ar,
    R: tl.constexpr, RP: tl.constexpr, BIAS: tl.constexpr, EVEN_K: tl.constexpr, PDL: tl.constexpr,
    UP: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Grid (cdiv(M, BM) * cdiv(N, BN),).

    p_x (M, K), p_w element (k, n) at k * stride_wk + n * stride_wn, p_a (R, K), p_b (N, R), p_bias (N,), p_y (M, N);
    the first column of tiles leaves S' (M, RP) in p_s for backward.
    """
    follow(PDL)
    i_m, i_n = grouped_tile(tl.program_id(0), M, N, BM, BN, GROUP)
    o_m = i_m * BM + tl.arange(0, BM)
    o_n = i_n * BN + tl.arange(0, BN)
    o_r = tl.arange(0, RP)
    o_k = tl.arange(0, BK)
    m_r = o_r < R
    p_xt = p_x + (o_m % M).to(tl.int64)[:, None] * stride_xm + o_k[None, :]
    p_wt = p_w + o_k[:, None] * stride_wk + (o_n % N).to(tl.int64)[None, :] * stride_wn
    p_at = p_a + o_r[None, :] * stride_ar + o_k[:, None]
    b_y = tl.zeros((BM, BN), dtype=tl.float32)
    b_s = tl.zeros((BM, RP), dtype=tl.float32)
    for k in range(0, K, BK):
        if EVEN_K:
            b_x = tl.load(p_xt)
            b_w = tl.load(p_wt)
            b_a = tl.load(p_at, mask=m_r[None, :], other=0.0)
        else:
            b_x = tl.load(p_xt, mask=(o_k < K - k)[None, :], other=0.0)
            b_w = tl.load(p_wt, mask=(o_k < K - k)[:, None], other=0.0)
            b_a = tl.load(p_at, mask=(o_k < K - k)[:, None] & m_r[None, :], other=0.0)
        b_y = tl.dot(up(b_x, UP), up(b_w, UP), b_y, input_precision="ieee")
        b_s = tl.dot(up(b_x, UP), up(b_a, UP).to(up(b_x, UP).dtype), b_s, input_precision="ieee")
        p_xt += BK
        p_wt += BK * stride_wk
        p_at += BK
    m_m = o_m < M
    m_n = o_n < N
    b_s = down(b_s * scale, p_x.dtype.element_ty, UP)
    if i_n == 0:
        tl.store(p_s + o_m.to(tl.int64)[:, None] * RP + o_r[None, :], b_s, mask=m_m[:, None])
    b_v = tl.load(p_b + o_n[None, :] * R + o_r[:, None], mask=m_r[:, None] & m_n[None, :], other=0.0)
    b_v = down(b_v.to(tl.float32), p_x.dtype.element_ty, UP)
    b_y = tl.dot(up(b_s, UP), up(b_v, UP), b_y, input_precision="ieee")
    if BIAS:
        b_y += tl.load(p_bias + o_n, mask=m_n, other=0.0).to(tl.float32)[None, :]
    p_out = p_y + o_m.to(tl.int64)[:, None] * N + o_n[None, :]
    tl.store(p_out, down(b_y, p_y.dtype.element_ty, UP), mask=m_m[:, None] & m_n[None, :])


def single_pass_launch(
    m: int, n: int, k: int, rank: int, tile: Any, *,
    stride_xm: int, stride_wk: int, stride_wn: int, bias: bool, pdl: bool = False,
    dtype: torch.dtype, keep: bool = True,
) -> launch.Launch:  # fmt: skip
    """The launch for one shape; tile has bm, bn, bk, warps, stages."""
    sizes = {
        "M": m, "N": n, "K": k, "stride_xm": stride_xm, "stride_wk": stride_wk, "stride_wn": stride_wn, "stride_ar": k,
    }  # fmt: skip
    constants = {
        "R": rank, "RP": padded(rank), "BIAS": bias, "EVEN_K": k % tile.bk == 0, "PDL": pdl,
        "UP": launch.interpreting() and dtype == torch.bfloat16,
        "BM": tile.bm, "BN": tile.bn, "BK": tile.bk, "GROUP": 8,
    }  # fmt: skip
    grid = (triton.cdiv(m, tile.bm) * triton.cdiv(n, tile.bn), 1, 1)
    return launch.Launch(
        single_pass_kernel,
        grid,
        sizes=sizes,
        constants=constants,
        warps=tile.warps,
        stages=tile.stages,
        pdl=pdl,
        keep=keep,
    )
