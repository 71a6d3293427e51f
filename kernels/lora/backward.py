"""The backward schemes, for the gradients that are asked for and no others.

dS' = scale / (1 - p) * dY B        dX = dY W + keep * (dS' A)        dA = dS'^T (keep * X)        dB = dY^T S'

A scheme is named by how it computes dX: epilogue (a GEMM that ends with the branch), epilogue_tma (the same by TMA), or
cublas and the branch added to its result. dS' and dB are one pass over dY, and dA its own launch; with _fused_da all
three are one launch.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..runtime import launch
from ..runtime.dispatch import Case, Choice, choose_tile, parts_for
from ..runtime.schemes import BACKWARD_SCHEMES
from ..runtime.sizes import padded
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
    dx_by, fused_da = BACKWARD_SCHEMES[choice.scheme]
    if dx_by == "torch":
        return _torch(spec, needs, adapter)
    case, dtype, device = spec.case, spec.dtype, spec.device
    m, n, k, rank = case.m, case.n, case.k, case.rank
    # Seen from dX the reduction is N and the width K.
    need_x, need_a, need_b = needs
    s_parts, stride_sm = s.shape[0], s.stride(1)
    common: dict[str, Any] = {"pdl": spec.pdl, "dtype": dtype, "keep": keep}
    wide = keeps_range(dtype, adapter)
    masked, width = case.dropout, padded(rank)
    fused_da = fused_da and need_a and need_b
    launch_ds: Any = None
    ds_parts = 1
    db_blocks = da_blocks = 0
    if need_b and (need_x or need_a):
        from .branch_gradients import branch_gradients_launch

        tile = choose_tile("branch_gradients_da" if fused_da else "branch_gradients", case, m, 0 if fused_da else n)
        if not fused_da:
            ds_parts = parts_for(-(-m // tile.bm), -(-n // tile.bn), case)
        db_blocks = -(-m // tile.bm)
        da_blocks = db_blocks if fused_da else 0
        launch_ds = branch_gradients_launch(
            m, n, k, rank, tile, stride_dm=stride_dm, stride_xm=stride_xm, s_parts=s_parts, stride_sm=stride_sm,
            parts=ds_parts, with_da=fused_da, masked=masked and fused_da, wide=wide, **common,
        )  # fmt: skip
    elif need_x or need_a:
        from .project import project_launch

        tile = choose_tile("project", case, m, 0)
        ds_parts = parts_for(-(-m // tile.bm), -(-n // tile.bk), case)
        launch_ds = project_launch(
            m, n, rank, tile, stride_xm=stride_dm, stride_ar=1, stride_ak=rank, parts=ds_parts, wide=wide,
            **common,
        )  # fmt: skip
    dx, by_gemm = _build_dx(spec, choice, dx_by, stride_dm, ds_parts, keep) if need_x else (None, False)
    launch_da: Any = None
    if need_a and not fused_da:
        launch_da, da_blocks = build_skinny(
            case, m, k, masked, l_parts=ds_parts, stride_l=width, stride_tm=stride_xm, wide=wide, ahead=by_gemm,
            **common,
        )  # fmt: skip
    launch_db: Any = None
    if need_b and not (need_x or need_a):
        launch_db, db_blocks = build_skinny(
            case, m, n, False, l_parts=s_parts, stride_l=stride_sm, stride_tm=stride_dm, **common
        )
    launch_reduce: Any = None
    if need_a or need_b:
        from ..runtime.skinny_product import reduce_launch

        launch_reduce = reduce_launch(
            rank, left=(n if need_b else 0, db_blocks), right=(k if need_a else 0, da_blocks), pdl=spec.pdl,
            dtype=adapter,
        )  # fmt: skip
    ds_dtype = dtype if ds_parts == 1 and not wide else torch.float32

    def run(dy, x, weight, a, b, s, mask, scale):
        ds = db_sum = da_sum = grad_x = grad_a = grad_b = None
        if db_blocks:
            db_sum = launch.empty((db_blocks, width, n), torch.float32, device)
        if da_blocks:
            da_sum = launch.empty((da_blocks, width, k), torch.float32, device)
        if launch_ds is not None:
            ds = launch.empty((ds_parts, m, width), ds_dtype, device)
            if need_b:
                launch_ds(
                    p_dy=dy, p_b=b, p_s=s, p_x=x, p_mask=mask, p_ds=ds, p_db=db_sum, p_da=da_sum, scale=scale
                )  # fmt: skip
            else:
                launch_ds(p_x=dy, p_a=b, p_s=ds, p_mask=None, p_seed=None, seed=0, scale=scale, threshold=0)
        if dx is not None:
            grad_x = dx(dy, weight, ds, a, mask)
        if launch_da is not None:
            launch_da(p_l=ds, p_index=None, p_t=x, p_mask=mask, p_out=da_sum, scale=1.0)
        if launch_db is not None:
            launch_db(p_l=s, p_index=None, p_t=dy, p_mask=None, p_out=db_sum, scale=1.0)
        if launch_reduce is not None:
            grad_b = launch.empty((n, rank), adapter, device) if need_b else None
            grad_a = launch.empty((rank, k), adapter, device) if need_a else None
            launch_reduce(p_left=db_sum, p_left_out=grad_b, p_right=da_sum, p_right_out=grad_a, scale=1.0)
        return grad_x, grad_a, grad_b

    return run


def keeps_range(dtype: torch.dtype, adapter: torch.dtype) -> bool:
    """Whether B and dS' enter backward's products with the range of fp32: fp32 adapters over an fp16 model.

    Rounded to fp16, 28 to 60 % of dA were exactly 0 without loss scaling (Llama of 2 blocks, CPU). bf16 has the range
    of fp32, and under fp16 adapters PEFT rounds too.
    """
    return dtype == torch.float16 and adapter == torch.float32


def build_skinny(
    case: Case, m: int, c: int, masked: bool, *,
    l_parts: int, stride_l: int, stride_tm: int, wide: bool = False, pdl: bool = False, ahead: bool = False,
    dtype: torch.dtype, keep: bool,
) -> tuple[Any, int]:  # fmt: skip
    """The launch of L^T R with addends, and how many sets of them. ahead: as skinny_kernel's AHEAD."""
    from ..runtime.skinny_product import skinny_launch

    tile = choose_tile("skinny" if l_parts == 1 else "skinny_parts", case, m, c)
    parts = parts_for(-(-c // tile.bn), -(-m // tile.bm), case, most=16)
    run = skinny_launch(
        m, c, case.rank, tile, l_parts=l_parts, stride_l=stride_l, stride_tm=stride_tm, masked=masked, wide=wide,
        parts=parts, pdl=pdl, ahead=ahead, dtype=dtype, keep=keep,
    )  # fmt: skip
    return run, parts


def _build_dx(
    spec: Spec, choice: Choice, dx_by: str, stride_dm: int, parts: int, keep: bool
) -> tuple[Callable[..., Tensor], bool]:
    """run(dy, weight, ds, a, mask) -> dX (M, K), and whether its last launch is our GEMM."""
    case, dtype, device = spec.case, spec.dtype, spec.device
    m, n, k, rank = case.m, case.n, case.k, case.rank
    masked = case.dropout
    cublas = dx_by == "cublas"
    tma = dx_by == "epilogue_tma"
    gemm: Any = None
    # cuBLAS adds the branch itself, unless it comes in parts or under a mask: then our GEMM does, over no K at all.
    if not cublas or masked or parts > 1:
        gemm = build_gemm(
            case, m, k, 0 if cublas else n, choice.tile, tma=tma, stride_xm=stride_dm, stride_wk=spec.stride_w[0],
            stride_wn=spec.stride_w[1], stride_vr=k, stride_vn=1, stride_sm=padded(rank), parts=parts, bias=False,
            masked=masked, pdl=spec.pdl, dtype=dtype, keep=keep, add=cublas,
        )  # fmt: skip

    def run(dy: Tensor, weight: Tensor, ds: Tensor, a: Tensor, mask: Tensor | None) -> Tensor:
        if cublas:
            grad_x = torch.mm(dy, weight)
            if gemm is None:
                return grad_x.addmm_(ds[0, :, :rank].to(dtype), a.to(dtype))
        else:
            grad_x = launch.empty((m, k), dtype, device)
        gemm(dy, weight, grad_x, ds, a, None, mask)
        return grad_x

    return run, gemm is not None


def _torch(spec: Spec, needs: Needs, adapter: torch.dtype) -> Run:
    need_x, need_a, need_b = needs
    rank = spec.case.rank

    def run(dy, x, weight, a, b, s, mask, scale):
        grad_x = grad_a = grad_b = None
        wide = dy.to(adapter)  # fp32 where the adapters are: their gradients keep its range, as PEFT's do
        if need_b:
            grad_b = torch.mm(wide.t(), s[0, :, :rank].to(adapter))
        if need_x or need_a:
            ds = torch.mm(wide, b).mul_(scale)
            if need_x:
                grad_x = torch.mm(dy, weight).addmm_(ds.to(dy.dtype), a.to(dy.dtype))
            if need_a:
                grad_a = torch.mm(ds.t(), x.to(adapter))
        return grad_x, grad_a, grad_b

    return run
