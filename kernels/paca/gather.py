"""x_idx = x[:, index]: all of x that PaCA's backward needs, gathered once."""

from typing import Any

import triton
import triton.language as tl

from ..runtime import launch
from ..runtime.jit_helpers import follow
from ..runtime.sizes import padded


@triton.jit
def gather_kernel(
    p_x, p_index, p_out, M, stride_xm, R: tl.constexpr, RP: tl.constexpr, PDL: tl.constexpr, BM: tl.constexpr
):  # fmt: skip
    """Grid (cdiv(M, BM),). p_x (M, K), p_index (R,), p_out (M, R)."""
    follow(PDL)
    o_m = (tl.program_id(0) * BM + tl.arange(0, BM)).to(tl.int64)
    o_r = tl.arange(0, RP)
    m_r = o_r < R
    o_x = tl.load(p_index + o_r, mask=m_r, other=0).to(tl.int64)
    m_o = (o_m < M)[:, None] & m_r[None, :]
    b_x = tl.load(p_x + o_m[:, None] * stride_xm + o_x[None, :], mask=m_o, other=0.0)
    tl.store(p_out + o_m[:, None] * R + o_r[None, :], b_x, mask=m_o)


def gather_launch(
    m: int, rank: int, tile: Any, *, stride_xm: int, pdl: bool = False, keep: bool = True
) -> launch.Launch:
    """The launch for one shape; tile has bm, warps."""
    constants = {"R": rank, "RP": padded(rank), "PDL": pdl, "BM": tile.bm}
    sizes, grid = {"M": m, "stride_xm": stride_xm}, (triton.cdiv(m, tile.bm), 1, 1)
    return launch.Launch(gather_kernel, grid, sizes=sizes, constants=constants, warps=tile.warps, pdl=pdl, keep=keep)
