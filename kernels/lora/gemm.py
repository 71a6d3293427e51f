"""The GEMM of the epilogue schemes: Y = X W^T + S' V (+ bias), the branch added to the accumulator after the main loop.

Last, because on sm_90 the operands S' and V then reuse the pipeline's buffers (128x256x64, 3 stages, rank 64: 144 KiB
in place of 192), and because a persistent loop that begins with the branch is not pipelined at all. The scale sits in
S', rounded once with it.
"""

from typing import Any

import torch
import triton
import triton.language as tl

from ..runtime import launch
from ..runtime.architectures import features
from ..runtime.jit_helpers import down, follow, load_keeps, load_sum, up
from ..runtime.sizes import mask_bytes, padded


@triton.jit
def gemm_kernel(
    p_x, p_w, p_y, p_s, p_v, p_bias, p_mask,
    M, N, K, stride_xm, stride_wk, stride_wn, stride_vr, BYTES,
    R: tl.constexpr, RP: tl.constexpr, STRIDE_VN: tl.constexpr, STRIDE_SM: tl.constexpr, PARTS: tl.constexpr,
    BIAS: tl.constexpr, MASKED: tl.constexpr, ADD: tl.constexpr, EVEN_K: tl.constexpr, PDL: tl.constexpr,
    UP: tl.constexpr, RC: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr,
):  # fmt: skip
    """Grid (cdiv(M, BM) * cdiv(N, BN),).

    p_x (M, K) with unit stride in k; p_w element (k, n) at k * stride_wk + n * stride_wn; p_s (PARTS, M, STRIDE_SM);
    p_v element (r, n) at r * stride_vr + n * STRIDE_VN; p_bias (N,); p_mask (M, BYTES) keeps of the branch, packed;
    p_y (M, N). ADD: Y is added to, not overwritten. PDL: the kernel ahead writes neither X nor W.
    """
    i_m, i_n = grouped_tile(tl.program_id(0), M, N, BM, BN, GROUP)
    o_m = i_m * BM + tl.arange(0, BM)
    o_n = i_n * BN + tl.arange(0, BN)
    # Rows and columns past the end read from the beginning: no masks inside the loop.
    o_xm = (o_m % M).to(tl.int64)
    o_wn = (o_n % N).to(tl.int64)
    b_y = tl.zeros((BM, BN), dtype=tl.float32)
    b_y = add_product(b_y, p_x, p_w, o_xm, o_wn, K, stride_xm, stride_wk, stride_wn, EVEN_K, UP, BK)
    # The main product does not need S': it ran while the S kernel was finishing.
    follow(PDL)
    DTYPE: tl.constexpr = p_x.dtype.element_ty
    b_branch = tl.zeros((BM, BN), dtype=tl.float32) if MASKED else b_y
    b_branch = add_branch(
        b_branch, p_s, p_v, o_m, o_n, M, N, stride_vr, R, RP, STRIDE_VN, STRIDE_SM, PARTS, UP, RC, DTYPE
    )
    if MASKED:
        b_y += tl.where(load_keeps(p_mask, o_m, o_m < M, i_n * BN // 8, BYTES, BM, BN), b_branch, 0.0)
    else:
        b_y = b_branch
    if BIAS:
        b_y += tl.load(p_bias + o_n, mask=o_n < N, other=0.0).to(tl.float32)[None, :]
    p_out = p_y + o_m.to(tl.int64)[:, None] * N + o_n[None, :]
    m_out = (o_m < M)[:, None] & (o_n < N)[None, :]
    if ADD:
        b_y += tl.load(p_out, mask=m_out, other=0.0).to(tl.float32)
    tl.store(p_out, down(b_y, p_y.dtype.element_ty, UP), mask=m_out)


@triton.jit
def add_product(
    b_y, p_x, p_w, o_xm, o_wn, K, stride_xm, stride_wk, stride_wn, EVEN_K: tl.constexpr, UP: tl.constexpr,
    BK: tl.constexpr,
):  # fmt: skip
    """b_y + X W on one tile, K in steps of BK."""
    o_k = tl.arange(0, BK)
    p_xt = p_x + o_xm[:, None] * stride_xm + o_k[None, :]
    p_wt = p_w + o_k[:, None] * stride_wk + o_wn[None, :] * stride_wn
    for k in range(0, K, BK):
        if EVEN_K:
            b_x = tl.load(p_xt)
            b_w = tl.load(p_wt)
        else:
            b_x = tl.load(p_xt, mask=(o_k < K - k)[None, :], other=0.0)
            b_w = tl.load(p_wt, mask=(o_k < K - k)[:, None], other=0.0)
        b_y = tl.dot(up(b_x, UP), up(b_w, UP), b_y, input_precision="ieee")
        p_xt += BK
        p_wt += BK * stride_wk
    return b_y


@triton.jit
def grouped_tile(pid, M, N, BM: tl.constexpr, BN: tl.constexpr, GROUP: tl.constexpr):
    """Tiles are walked in bands of GROUP rows, so that neighbours in time share W's tiles in L2."""
    tiles_m = tl.cdiv(M, BM)
    tiles_n = tl.cdiv(N, BN)
    first_m = pid // (GROUP * tiles_n) * GROUP
    rows = tl.minimum(tiles_m - first_m, GROUP)
    within = pid % (GROUP * tiles_n)
    return first_m + within % rows, within // rows


@triton.jit
def add_branch(
    b_y, p_s, p_v, o_m, o_n, M, N, stride_vr,
    R: tl.constexpr, RP: tl.constexpr, STRIDE_VN: tl.constexpr, STRIDE_SM: tl.constexpr, PARTS: tl.constexpr,
    UP: tl.constexpr, RC: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """b_y + S' V on one tile, RC ranks at a time. Under a mask b_y is zero, and the sum is masked by the caller."""
    m_m = o_m < M
    m_n = o_n < N
    for r in tl.static_range(0, RP, RC):
        o_r = r + tl.arange(0, RC)
        m_r = o_r < R
        b_s = load_sum(p_s, o_m[:, None], o_r[None, :], M, m_m[:, None] & m_r[None, :], PARTS, STRIDE_SM, UP)
        p_vt = p_v + o_r[:, None] * stride_vr + o_n[None, :] * STRIDE_VN
        b_v = tl.load(p_vt, mask=m_r[:, None] & m_n[None, :], other=0.0)
        b_v = up(down(b_v.to(tl.float32), DTYPE, UP), UP)
        # The sum with zero keeps S' in registers: read from shared memory, triton 3.6 hands ptxas a main loop on sm_90
        # that it serialises (C7515).
        b_s = up(down(b_s.to(tl.float32) + 0.0, DTYPE, UP), UP)
        b_y = tl.dot(b_s, b_v, b_y, input_precision="ieee")
    return b_y


def rank_chunk(rank: int, arch: int) -> int:
    """Ranks per product of the branch: all where wgmma reads them from shared memory; 16 elsewhere, where rank 64
    beside a full accumulator spills."""
    return padded(rank) if features(arch).mma == "wgmma" else 16


def gemm_launch(
    m: int, n: int, k: int, rank: int, tile: Any, *,
    stride_xm: int, stride_wk: int, stride_wn: int, stride_vr: int, stride_vn: int, stride_sm: int, parts: int = 1,
    bias: bool = False, masked: bool = False, add: bool = False, pdl: bool = False, arch: int, dtype: torch.dtype,
    keep: bool = True,
) -> launch.Launch:  # fmt: skip
    """The launch for one shape; tile has bm, bn, bk, warps, stages. k = 0 adds the branch alone."""
    sizes = {
        "M": m, "N": n, "K": k, "stride_xm": stride_xm, "stride_wk": stride_wk, "stride_wn": stride_wn,
        "stride_vr": stride_vr, "BYTES": mask_bytes(n) if masked else 0,
    }  # fmt: skip
    constants = {
        "R": rank, "RP": padded(rank), "STRIDE_VN": stride_vn, "STRIDE_SM": stride_sm, "PARTS": parts,
        "BIAS": bias, "MASKED": masked, "ADD": add, "EVEN_K": k % tile.bk == 0, "PDL": pdl,
        "UP": launch.interpreting() and dtype == torch.bfloat16,
        "RC": rank_chunk(rank, arch), "BM": tile.bm, "BN": tile.bn, "BK": tile.bk, "GROUP": 8,
    }  # fmt: skip
    grid = (triton.cdiv(m, tile.bm) * triton.cdiv(n, tile.bn), 1, 1)
    return launch.Launch(
        gemm_kernel, grid, sizes=sizes, constants=constants, warps=tile.warps, stages=tile.stages, pdl=pdl, keep=keep
    )
