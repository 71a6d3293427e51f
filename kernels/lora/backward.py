"""The backward schemes, for the gradients that are asked for and no others.

dS' = scale / (1 - p) * dY B        dX = dY W + keep * (dS' A)        dA = dS'^T (keep * X)        dB = dY^T S'

sweep   dS' and dB in one pass over dY, dA by its own launch;  rows   all three in one launch.
dX      gemm (pointers), persistent (TMA), or cuBLAS and the branch added to its result.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..runtime import launch
from ..runtime.dispatch import BACKWARD_SCHEMES, Case, Choice, choose_tile, parts_for
from ..runtime.sizes import mask_bytes, padded
from .forward import Spec, build_gemm

Needs = tuple[bool, bool, bool]  # x, lora_a, lora_b
# dy (M, N), x, weight, lora_a, lora_b, s (parts, M, width), mask, scale / (1 - p) -> dx, da, db
Run = Callable[..., tuple[Tensor | None, Tensor | None, Tensor | None]]


def build_backward(
    spec: Spec,
    choice: Choice,
    needs: Needs,
    adapter: torch.dtype,
    stride_dm: int,
    stride_xm: int,
    s: Tensor,
    keep: bool,
) -> Run:
    """The function that runs the chosen scheme. s is S' as forward left it: only its shape and strides are read."""
    dx_by, small = BACKWARD_SCHEMES[choice.scheme]
    if small == "torch":
        return _torch(spec, needs, adapter)
    case, dtype, device = spec.case, spec.dtype, spec.device
    m, n, k, rank = case.m, case.n, case.k, case.rank
    # Seen from dX the reduction is N and the width K.
    need_x, need_a, need_b = needs
    s_parts, stride_sm = s.shape[0], s.stride(1)
    common: dict[str, Any] = {"dtype": dtype, "keep": keep}
    masked, width = case.dropout, padded(rank)
    rows = small == "rows" and need_a and need_b
    launch_ds: Any = None
    ds_parts = 1
    db_blocks = da_blocks = 0
    if need_b and (need_x or need_a):
        from .branch_gradients import sweep_launch

        tile = choose_tile("rows" if rows else "sweep", case, m, 0 if rows else n)
        if not rows:
            ds_parts = parts_for(-(-m // tile.bm), -(-n // tile.bn), case)
        db_blocks = -(-m // tile.bm)
        da_blocks = db_blocks if rows else 0
        launch_ds = sweep_launch(
            m, n, k, rank, tile, s_parts=s_parts, stride_sm=stride_sm, parts=ds_parts, rows=rows,
            masked=masked and rows, pdl=spec.pdl, **common,
        )  # fmt: skip
    elif need_x or need_a:
        from .project import project_launch

        tile = choose_tile("project", case, m, 0)
        ds_parts = parts_for(-(-m // tile.bm), -(-n // tile.bk), case)
        launch_ds = project_launch(m, n, rank, tile, stride_ak=rank, parts=ds_parts, pdl=spec.pdl, **common)
    launch_da: Any = None
    if need_a and not rows:
        launch_da, da_blocks = build_skinny(case, m, k, masked, l_parts=ds_parts, stride_l=width, **common)
    launch_db: Any = None
    if need_b and not (need_x or need_a):
        launch_db, db_blocks = build_skinny(case, m, n, False, l_parts=s_parts, stride_l=stride_sm, **common)
    launch_reduce: Any = None
    if need_a or need_b:
        from ..runtime.skinny_product import reduce_launch

        launch_reduce = reduce_launch(n if need_b else 0, k if need_a else 0, rank, dtype=adapter)
    dx = _build_dx(spec, choice, dx_by, stride_dm, ds_parts, keep) if need_x else None
    ds_dtype = dtype if ds_parts == 1 else torch.float32
    bytes_ = mask_bytes(k) if masked else 0

    def run(dy, x, weight, a, b, s, mask, scale):
        ds = db_sum = da_sum = grad_x = grad_a = grad_b = None
        if db_blocks:
            db_sum = launch.empty((db_blocks, width, n), torch.float32, device)
        if da_blocks:
            da_sum = launch.empty((da_blocks, width, k), torch.float32, device)
        if launch_ds is not None:
            ds = launch.empty((ds_parts, m, width), ds_dtype, device)
            if need_b:
                launch_ds(dy, b, s, x, mask, ds, db_sum, da_sum, m, n, k, stride_dm, stride_xm, bytes_, scale)
            else:
                launch_ds(dy, b, ds, None, None, m, n, stride_dm, 1, width, 0, scale, 0)
        if dx is not None:
            grad_x = dx(dy, weight, ds, a, mask)
        if launch_da is not None:
            launch_da(ds, None, x, mask, da_sum, m, k, 0, stride_xm, 0, 0, bytes_, 1.0)
        if launch_db is not None:
            launch_db(s, None, dy, None, db_sum, m, n, 0, stride_dm, 0, 0, 0, 1.0)
        if launch_reduce is not None:
            grad_b = launch.empty((n, rank), adapter, device) if need_b else None
            grad_a = launch.empty((rank, k), adapter, device) if need_a else None
            launch_reduce(
                db_sum, grad_b, db_blocks, n if need_b else 0, da_sum, grad_a, da_blocks, k if need_a else 0,
                -(-n // 128) if need_b else 0, 1.0,
            )  # fmt: skip
        return grad_x, grad_a, grad_b

    return run


def build_skinny(
    case: Case, m: int, c: int, masked: bool, *, l_parts: int, stride_l: int, dtype: torch.dtype, keep: bool
) -> tuple[Any, int]:
    """The launch of L^T R with addends, and how many sets of them."""
    from ..runtime.skinny_product import skinny_launch

    tile = choose_tile("skinny" if l_parts == 1 else "skinny_parts", case, m, c)
    parts = parts_for(-(-c // tile.bn), -(-m // tile.bm), case, most=16)
    run = skinny_launch(
        m, c, case.rank, tile, l_parts=l_parts, stride_l=stride_l, masked=masked, parts=parts, dtype=dtype, keep=keep
    )
    return run, parts


def _build_dx(spec: Spec, choice: Choice, dx_by: str, stride_dm: int, parts: int, keep: bool) -> Callable[..., Tensor]:
    """run(dy, weight, ds, a, mask) -> dX (M, K)."""
    case, dtype, device = spec.case, spec.dtype, spec.device
    m, n, k, rank = case.m, case.n, case.k, case.rank
    masked = case.dropout
    cublas = dx_by == "cublas"
    tma = dx_by == "persistent" and not masked
    gemm: Any = None
    # cuBLAS adds the branch itself, unless it comes in parts or under a mask: then our GEMM does, over no K at all.
    if not cublas or masked or parts > 1:
        gemm = build_gemm(
            case, m, k, 0 if cublas else n, choice.tile, tma=tma, stride_xm=stride_dm, stride_wk=spec.stride_w[0],
            stride_wn=spec.stride_w[1], stride_vr=k, stride_vn=1, stride_sm=padded(rank), parts=parts, bias=False,
            masked=masked, pdl=spec.pdl and not cublas, dtype=dtype, keep=keep, add=cublas,
        )  # fmt: skip

    def run(dy: Tensor, weight: Tensor, ds: Tensor, a: Tensor, mask: Tensor | None) -> Tensor:
        if cublas:
            grad_x = torch.mm(dy, weight)
            if gemm is None:
                return grad_x.addmm_(ds[0, :, :rank], a.to(dtype))
        else:
            grad_x = launch.empty((m, k), dtype, device)
        gemm(dy, weight, ds, a, None, mask, grad_x)
        return grad_x

    return run


def _torch(spec: Spec, needs: Needs, adapter: torch.dtype) -> Run:
    need_x, need_a, need_b = needs
    rank = spec.case.rank

    def run(dy, x, weight, a, b, s, mask, scale):
        grad_x = grad_a = grad_b = None
        if need_b:
            grad_b = torch.mm(dy.t(), s[0, :, :rank]).to(adapter)
        if need_x or need_a:
            ds = torch.mm(dy, b.to(dy.dtype)).mul_(scale)
            if need_x:
                grad_x = torch.mm(dy, weight).addmm_(ds, a.to(dy.dtype))
            if need_a:
                grad_a = torch.mm(ds.t(), x).to(adapter)
        return grad_x, grad_a, grad_b

    return run
