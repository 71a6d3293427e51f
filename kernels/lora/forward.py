"""The forward schemes: each builds its launches once per case and returns a function that runs them.

cublas        S kernel, cuBLAS, addmm_: three launches, the strong baseline.
epilogue      S kernel, then a GEMM whose tiles end with the branch; epilogue_tma the same by TMA.
single_pass   one kernel.
bordered      the S kernel copies X beside S', one cuBLAS GEMM on the bordered weight [W | B].
torch         cuBLAS throughout: fp32, ranks above the tables, old architectures.

S' = scale / (1 - p) * drop(X) A^T is saved in each of them, scaled.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime import launch
from ..runtime.dispatch import Case, Choice, choose_tile, parts_for
from ..runtime.sizes import mask_bytes, padded, threshold_of
from ..runtime.tile_model import blocks_per_sm
from .arguments import Seed
from .bordered_weight import border_of


@dataclass(frozen=True)
class Spec:
    """A forward call, but for the values: what its launches depend on."""

    case: Case
    choice: Choice
    dtype: torch.dtype
    device: torch.device
    stride_xm: int
    stride_w: tuple[int, int]  # of the logical (N, K) weight
    bias: bool
    keep: bool  # every pointer is 16-byte aligned: compiled kernels can be kept
    pdl: bool  # kernels may begin before the one ahead of them has ended
    whole: bool = False  # S' in one part


@dataclass
class Saved:
    """What a forward leaves for backward: S' (parts, M, width) and the packed mask; x is kept by the caller.

    copied: s is the buffer (1, M, K + width) of the bordered scheme, whose first K columns are x.
    """

    y: Tensor
    s: Tensor
    mask: Tensor | None
    copied: bool = False


# x (M, K), weight (N, K), lora_a, lora_b, bias, scale, dropout_p, seed
Run = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None, float, float, Seed | None], Saved]


def build_forward(spec: Spec) -> Run:
    """The function that runs the chosen scheme."""
    build = {
        "cublas": _cublas, "epilogue": _epilogue, "epilogue_tma": _epilogue, "single_pass": _single_pass,
        "bordered": _bordered, "torch": _torch,
    }  # fmt: skip
    return build[spec.choice.scheme](spec)


def build_project(spec: Spec, parts: int, copy: bool = False) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """run(x, a, scale, dropout_p, seed) -> S' (parts, M, RP) and the mask; with copy S' is a buffer [X | S']."""
    from .project import project_launch

    case, dtype, device = spec.case, spec.dtype, spec.device
    m, k = case.m, case.k
    tile = choose_tile("project", case, m, 0)
    width = padded(case.rank) + (k if copy else 0)
    shape = (parts, m, width)
    s_dtype = dtype if parts == 1 else torch.float32
    bytes_ = mask_bytes(k)
    run = project_launch(
        m, k, case.rank, tile, stride_xm=spec.stride_xm, stride_ar=k, parts=parts, dropout=case.dropout, copy=copy,
        pdl=spec.pdl, dtype=dtype, keep=spec.keep,
    )  # fmt: skip

    def project(x: Tensor, a: Tensor, scale: float, p: float, seed: Seed | None) -> tuple[Tensor, Tensor | None]:
        s = launch.empty(shape, s_dtype, device)
        mask, threshold, at, value = None, 0, None, 0
        if p > 0.0:
            threshold = threshold_of(p)
            mask = launch.empty((m, bytes_), torch.uint8, device)
            scale = scale / (1.0 - p)
            at, value = seed if isinstance(seed, tuple) else (seed, 0)
        run(p_x=x, p_a=a, p_s=s, p_mask=mask, p_seed=at, seed=value, scale=scale, threshold=threshold)
        return s, mask

    return project


def project_parts(case: Case) -> int:
    """Parts of the S kernel: 1 unless the tokens are too few to fill the SMs."""
    tile = choose_tile("project", case, case.m, 0)
    return parts_for(-(-case.m // tile.bm), -(-case.k // tile.bk), case)


def _epilogue(spec: Spec) -> Run:
    case, dtype, device = spec.case, spec.dtype, spec.device
    m, n, k, rank = case.m, case.n, case.k, case.rank
    parts = 1 if spec.whole else project_parts(case)
    project = build_project(spec, parts)
    tma = spec.choice.scheme == "epilogue_tma"
    gemm = build_gemm(
        case, m, n, k, spec.choice.tile, tma=tma, stride_xm=spec.stride_xm, stride_wk=spec.stride_w[1],
        stride_wn=spec.stride_w[0], stride_vr=1, stride_vn=rank, stride_sm=padded(rank), parts=parts,
        bias=spec.bias, masked=False, pdl=spec.pdl, dtype=dtype, keep=spec.keep,
    )  # fmt: skip

    def run(x, weight, a, b, bias, scale, p, seed):
        s, mask = project(x, a, scale, p, seed)
        y = launch.empty((m, n), dtype, device)
        gemm(p_x=x, p_w=weight, p_s=s, p_v=b, p_bias=bias, p_mask=None, p_y=y)
        return Saved(y, s, mask)

    return run


def build_gemm(
    case: Case, m: int, n: int, k: int, tile: Any, *,
    tma: bool, stride_xm: int, stride_wk: int, stride_wn: int, stride_vr: int, stride_vn: int, stride_sm: int,
    parts: int, bias: bool, masked: bool, pdl: bool, dtype: torch.dtype, keep: bool, add: bool = False,
) -> Callable[..., None]:  # fmt: skip
    """The launch of y (m, n) = x (m, k) times weight, plus the branch s v; its inputs are those of gemm_kernel."""
    if tma:
        from .gemm_tma import gemm_tma_launch

        chosen = tile or choose_tile("gemm_tma", case, m, n, masked)
        blocks = blocks_per_sm(chosen, case.arch, tma=True, heavy=masked or padded(case.rank) > 32)
        run_tma = gemm_tma_launch(
            m, n, k, case.rank, chosen, stride_xm=stride_xm, stride_wk=stride_wk, stride_wn=stride_wn,
            stride_vr=stride_vr, stride_vn=stride_vn, stride_sm=stride_sm, programs=blocks * case.sms, parts=parts,
            bias=bias, masked=masked, pdl=pdl, dtype=dtype, keep=keep,
        )  # fmt: skip

        def gemm_tma(p_x, p_w, p_s, p_v, p_bias, p_mask, p_y):
            run_tma(d_x=p_x, d_w=p_w, d_y=p_y, p_s=p_s, p_v=p_v, p_bias=p_bias, p_mask=p_mask)

        return gemm_tma
    from .gemm import gemm_launch

    chosen = tile or choose_tile("gemm", case, m, n, masked)
    return gemm_launch(
        m, n, k, case.rank, chosen, stride_xm=stride_xm, stride_wk=stride_wk, stride_wn=stride_wn, stride_vr=stride_vr,
        stride_vn=stride_vn, stride_sm=stride_sm, parts=parts, bias=bias, masked=masked, add=add, pdl=pdl,
        arch=case.arch, dtype=dtype, keep=keep,
    )  # fmt: skip


def _single_pass(spec: Spec) -> Run:
    from .single_pass import single_pass_launch

    case, dtype, device = spec.case, spec.dtype, spec.device
    m, n, k, rank = case.m, case.n, case.k, case.rank
    if case.dropout:
        raise ValueError(
            "scheme is 'single_pass', expected another one with dropout: it would draw the mask once per tile"
        )
    tile = spec.choice.tile or choose_tile("single_pass", case, m, n)
    width = padded(rank)
    # fp32 A of rank 64 within the main loop makes ptxas serialise wgmma on sm_90 (C7515).
    rounded = case.fp32_adapters and width > 32
    stride_wn, stride_wk = spec.stride_w
    launch_y = single_pass_launch(
        m, n, k, rank, tile, stride_xm=spec.stride_xm, stride_wk=stride_wk, stride_wn=stride_wn, bias=spec.bias,
        pdl=spec.pdl, dtype=dtype, keep=spec.keep,
    )  # fmt: skip

    def run(x, weight, a, b, bias, scale, p, seed):
        s = launch.empty((1, m, width), dtype, device)
        y = launch.empty((m, n), dtype, device)
        if rounded:
            a = a.to(dtype)
        launch_y(p_x=x, p_w=weight, p_a=a, p_b=b, p_bias=bias, p_s=s, p_y=y, scale=scale)
        return Saved(y, s, None)

    return run


def _cublas(spec: Spec) -> Run:
    project = build_project(spec, 1)
    m, rank, dtype = spec.case.m, spec.case.rank, spec.dtype
    width = padded(rank)

    def run(x, weight, a, b, bias, scale, p, seed):
        s, mask = project(x, a, scale, p, seed)
        y = F.linear(x, weight, bias)
        if b.dtype != dtype:
            b = b.to(dtype)
        y.addmm_(s.as_strided((m, rank), (width, 1)), b.t())  # one view: s[0, :, :rank] makes two, and 4 us
        return Saved(y, s, mask)

    return run


def _bordered(spec: Spec) -> Run:
    project = build_project(spec, 1, copy=True)
    k, rank = spec.case.k, spec.case.rank

    def run(x, weight, a, b, bias, scale, p, seed):
        border = border_of(weight, rank)
        if border is None:
            raise ValueError(
                f"scheme is 'bordered', expected a weight with room for the branch: pass weight of shape "
                f"{tuple(weight.shape)} through kernels.lora.bordered_weight.bordered first"
            )
        border.narrow(1, k, rank).copy_(b)
        s, mask = project(x, a, scale, p, seed)
        return Saved(F.linear(s.squeeze(0), border, bias), s, mask, True)

    return run


def _torch(spec: Spec) -> Run:
    def run(x, weight, a, b, bias, scale, p, seed):
        y = F.linear(x, weight, bias)
        s = torch.mm(x, a.to(x.dtype).t()).mul_(scale)
        y.addmm_(s, b.to(x.dtype).t())
        return Saved(y, s.unsqueeze(0), None)

    return run
