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
from .bordered_weight import fit_of, room_at


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
    lead: tuple[int, ...] | None = None  # the shape of x (*lead, K), whose rows lie as those of (M, K); None: (M,)

    @property
    def shape_y(self) -> tuple[int, ...]:
        return (*((self.case.m,) if self.lead is None else self.lead), self.case.n)


# y (*lead, N), and what a forward leaves for backward beside x: S' and the packed mask. S' is (parts, M, width), or
# (M, width) where cuBLAS reads it; under 'bordered' it is the buffer (M, K + width), whose first K columns are x.
Result = tuple[Tensor, Tensor, Tensor | None]
# x (*lead, K), weight (N, K), lora_a, lora_b, bias, scale, dropout_p, seed
Run = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None, float, float, Seed | None], Result]


def build_forward(spec: Spec) -> Run:
    """The function that runs the chosen scheme."""
    build = {
        "cublas": _cublas, "epilogue": _epilogue, "epilogue_tma": _epilogue, "single_pass": _single_pass,
        "bordered": _bordered, "torch": _torch,
    }  # fmt: skip
    return build[spec.choice.scheme](spec)


def build_project(
    spec: Spec, parts: int, flat: bool = False, copy: bool = False
) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """run(x, a, scale, dropout_p, seed) -> S' (parts, M, RP) and the mask.

    flat: S' is (M, RP), of which a GEMM of cuBLAS needs no view. copy: it is the buffer [X | S'] (M, K + RP).
    """
    from .project import project_launch

    case, dtype, device = spec.case, spec.dtype, spec.device
    m, k = case.m, case.k
    tile = choose_tile("project", case, m, 0)
    width = padded(case.rank) + (k if copy else 0)
    shape = (m, width) if flat or copy else (parts, m, width)
    new_s = launch.allocation(shape, dtype if parts == 1 else torch.float32, device)
    new_mask = launch.allocation((m, mask_bytes(k)), torch.uint8, device)
    run = project_launch(
        m, k, case.rank, tile, stride_xm=spec.stride_xm, stride_ar=k, parts=parts, dropout=case.dropout, copy=copy,
        pdl=spec.pdl, dtype=dtype, keep=spec.keep,
    )  # fmt: skip

    def project(x: Tensor, a: Tensor, scale: float, p: float, seed: Seed | None) -> tuple[Tensor, Tensor | None]:
        s = new_s()
        if p == 0.0:
            run(x, a, s, None, None, 0, scale, 0)
            return s, None
        mask = new_mask()
        at, value = seed if type(seed) is tuple else (seed, 0)
        run(x, a, s, mask, at, value, scale / (1.0 - p), threshold_of(p))
        return s, mask

    return project


def project_parts(case: Case) -> int:
    """Parts of the S kernel: 1 unless the tokens are too few to fill the SMs."""
    tile = choose_tile("project", case, case.m, 0)
    return parts_for(-(-case.m // tile.bm), -(-case.k // tile.bk), case)


def _epilogue(spec: Spec) -> Run:
    case, dtype = spec.case, spec.dtype
    m, n, k, rank = case.m, case.n, case.k, case.rank
    parts = 1 if spec.whole else project_parts(case)
    project = build_project(spec, parts)
    tma = spec.choice.scheme == "epilogue_tma"
    gemm = build_gemm(
        case, m, n, k, spec.choice.tile, tma=tma, stride_xm=spec.stride_xm, stride_wk=spec.stride_w[1],
        stride_wn=spec.stride_w[0], stride_vr=1, stride_vn=rank, stride_sm=padded(rank), parts=parts,
        bias=spec.bias, masked=False, pdl=spec.pdl, dtype=dtype, keep=spec.keep,
    )  # fmt: skip

    new_y = launch.allocation(spec.shape_y, dtype, spec.device)

    def run(x, weight, a, b, bias, scale, p, seed):
        s, mask = project(x, a, scale, p, seed)
        y = new_y()
        gemm(x, weight, y, s, b, bias, None)
        return y, s, mask

    return run


def build_gemm(
    case: Case, m: int, n: int, k: int, tile: Any, *,
    tma: bool, stride_xm: int, stride_wk: int, stride_wn: int, stride_vr: int, stride_vn: int, stride_sm: int,
    parts: int, bias: bool, masked: bool, pdl: bool, dtype: torch.dtype, keep: bool, add: bool = False,
) -> Callable[..., None]:  # fmt: skip
    """The launch of y (m, n) = x (m, k) times weight, plus the branch s v; called with x, weight, y, s, v, bias and the
    mask, in the order in which both kernels take them."""
    if tma:
        from .gemm_tma import gemm_tma_launch

        chosen = tile or choose_tile("gemm_tma", case, m, n, masked)
        blocks = blocks_per_sm(chosen, case.arch, tma=True, heavy=masked or padded(case.rank) > 32)
        return gemm_tma_launch(
            m, n, k, case.rank, chosen, stride_xm=stride_xm, stride_wk=stride_wk, stride_wn=stride_wn,
            stride_vr=stride_vr, stride_vn=stride_vn, stride_sm=stride_sm, programs=blocks * case.sms, parts=parts,
            bias=bias, masked=masked, pdl=pdl, dtype=dtype, keep=keep,
        )  # fmt: skip

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

    new_s = launch.allocation((1, m, width), dtype, device)
    new_y = launch.allocation(spec.shape_y, dtype, device)

    def run(x, weight, a, b, bias, scale, p, seed):
        s, y = new_s(), new_y()
        if rounded:
            a = a.to(dtype)
        launch_y(x, weight, a, b, bias, s, y, scale)
        return y, s, None

    return run


def _cublas(spec: Spec) -> Run:
    project = build_project(spec, 1, flat=True)
    m, rank, dtype = spec.case.m, spec.case.rank, spec.dtype
    width = padded(rank)

    def run(x, weight, a, b, bias, scale, p, seed):
        s, mask = project(x, a, scale, p, seed)
        y = F.linear(flat(spec, x), weight, bias)
        if b.dtype != dtype:
            b = b.to(dtype)
        y.addmm_(s if width == rank else s.as_strided((m, rank), (width, 1)), b.t())
        return shaped(spec, y), s, mask

    return run


def _bordered(spec: Spec) -> Run:
    project = build_project(spec, 1, copy=True)
    rank = spec.case.rank
    fit = fit_of((spec.case.n, spec.case.k), spec.stride_w, rank)

    def run(x, weight, a, b, bias, scale, p, seed):
        room = room_at(weight.data_ptr(), fit, rank)
        if room is None:
            raise ValueError(
                f"scheme is 'bordered', expected a weight with room for the branch: pass weight of shape "
                f"{tuple(weight.shape)} through kernels.lora.bordered_weight.bordered first"
            )
        border, place = room
        place.copy_(b)
        s, mask = project(x, a, scale, p, seed)
        return shaped(spec, F.linear(s, border, bias)), s, mask

    return run


def _torch(spec: Spec) -> Run:
    dtype = spec.dtype
    new_s = launch.allocation((spec.case.m, spec.case.rank), dtype, spec.device)

    def run(x, weight, a, b, bias, scale, p, seed):
        x = flat(spec, x)
        y = F.linear(x, weight, bias)
        if b.dtype != dtype:
            a, b = a.to(dtype), b.to(dtype)
        s = new_s().addmm_(x, a.t(), beta=0, alpha=scale)  # what was in it is not read
        y.addmm_(s, b.t())
        return shaped(spec, y), s, None

    return run


def in_parts(s: Tensor) -> Tensor:
    """S' as forward left it, or its gradient, as (parts, M, width)."""
    return s if s.dim() == 3 else s[None]


def flat(spec: Spec, x: Tensor) -> Tensor:
    """x (*lead, K) as (M, K)."""
    return x if spec.lead is None else x.view(spec.case.m, spec.case.k)


def shaped(spec: Spec, y: Tensor) -> Tensor:
    """y (M, N), which is changed to (*lead, N): of a view made here, autograd lets nobody write into it."""
    return y if spec.lead is None else y.resize_(spec.shape_y)
