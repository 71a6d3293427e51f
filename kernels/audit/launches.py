"""Everything that the host code can launch on an architecture, found by running it on tensors without data."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..runtime import launch
from ..runtime.architectures import features
from ..runtime.dispatch import Case, Choice, allows, tiles_of, using_tiles
from ..runtime.schemes import split_scheme
from ..runtime.tile_tables import TILES, Tile
from .compilation import Compilation, compilation

#: Tokens and widths divisible by every tile, and larger than any; FEW tokens are so few that long loops are split.
M, N, K, FEW = 4096, 3072, 2048, 256
SMS = {80: 108, 86: 84, 89: 142, 90: 132, 100: 148, 120: 188}

Calls = list[tuple[launch.Launch, dict[str, Any]]]


@dataclass(frozen=True)
class Use:
    """A call that launches a kernel: a scheme of lora_linear, of lora_linear_group where it begins with 'group ', or of
    paca_linear where it begins with 'paca '; 'dora' is what dora_linear launches beside lora_linear."""

    scheme: str
    m: int = M
    dropout: bool = False
    conv1d: bool = False
    needs: str = "xab"  # the gradients that are asked for
    wide: bool = False  # fp32 adapters over fp16: B and dS' keep fp32's range in backward
    n: int = N
    k: int = K
    sms: int | None = None  # those of the device, where they are not SMS[arch]

    def __str__(self) -> str:
        words = (
            "few tokens" if self.m == FEW else "", self.scheme, "conv1d" if self.conv1d else "",
            "dropout" if self.dropout else "", "fp32 adapters" if self.wide else "",
            "" if self.needs == "xab" else f"d{self.needs} only",
        )  # fmt: skip
        return " ".join(word for word in words if word)


USES: dict[str, tuple[Use, ...]] = {
    "gemm": (
        Use("epilogue/epilogue"), Use("epilogue/epilogue", conv1d=True), Use("epilogue/epilogue", dropout=True),
        Use("epilogue/cublas", FEW, dropout=True), Use("epilogue/epilogue", dropout=True, wide=True),
        Use("group epilogue/epilogue"),
    ),
    "gemm_sum": (
        Use("group epilogue/epilogue"), Use("group epilogue/epilogue", conv1d=True),
        Use("group epilogue/epilogue", dropout=True), Use("group epilogue/epilogue", dropout=True, wide=True),
    ),
    "gemm_tma": (
        Use("epilogue_tma/epilogue_tma"), Use("epilogue_tma/epilogue_tma", conv1d=True),
        Use("epilogue_tma/epilogue_tma", wide=True), Use("epilogue_tma/epilogue_tma", dropout=True),
        Use("epilogue_tma/epilogue_tma", dropout=True, conv1d=True), Use("epilogue_tma/epilogue_tma", FEW),
        Use("epilogue_tma/epilogue_tma", FEW, dropout=True),
    ),
    "gemm_sum_tma": (
        Use("group epilogue_tma/epilogue_tma"), Use("group epilogue_tma/epilogue_tma", conv1d=True),
        Use("group epilogue_tma/epilogue_tma", dropout=True),
        Use("group epilogue_tma/epilogue_tma", dropout=True, conv1d=True),
    ),
    "single_pass": (
        Use("single_pass/cublas"), Use("single_pass/cublas", conv1d=True), Use("single_pass/cublas", wide=True),
    ),
    "project": (
        Use("epilogue/cublas"), Use("epilogue/cublas", dropout=True), Use("bordered/cublas"),
        Use("bordered/cublas", dropout=True), Use("epilogue/cublas", FEW, dropout=True),
        Use("cublas/cublas", needs="x"),
        Use("cublas/cublas", needs="x", wide=True), Use("epilogue/cublas", FEW, dropout=True, wide=True),
    ),
    "branch_gradients": (
        Use("epilogue/cublas"), Use("epilogue/cublas", FEW), Use("epilogue/cublas", wide=True),
        Use("epilogue/cublas", FEW, wide=True),
    ),
    "branch_gradients_da": (
        Use("epilogue/cublas_fused_da"), Use("epilogue/cublas_fused_da", dropout=True),
        Use("epilogue/cublas_fused_da", dropout=True, wide=True),
    ),
    "skinny": (
        Use("cublas/cublas", needs="b"), Use("epilogue/cublas", dropout=True), Use("paca gather"), Use("paca fused"),
        Use("paca gather", FEW), Use("epilogue/cublas", dropout=True, wide=True),
    ),
    "skinny_parts": (
        Use("epilogue/cublas", FEW), Use("epilogue/cublas", FEW, dropout=True),
        Use("epilogue/cublas", FEW, dropout=True, wide=True),
    ),
    "gather": (Use("paca gather"),),
    "row_norms": (Use("dora"), Use("dora", conv1d=True), Use("dora", wide=True), Use("dora", FEW)),
    "magnitude": (Use("dora"), Use("dora", wide=True)),
    "magnitude_gradient": (Use("dora"), Use("dora", FEW), Use("dora", wide=True), Use("dora", needs="x")),
}  # fmt: skip

#: Rank and dtype of x.
VARIANTS = (
    (16, torch.bfloat16), (64, torch.bfloat16), (8, torch.bfloat16), (32, torch.bfloat16), (16, torch.float16),
    (64, torch.float16),
)  # fmt: skip

#: The kernels that a list of tiles is for, where they are not its own name, or where one without a tile is read too.
KERNELS = {
    "branch_gradients_da": ("branch_gradients_kernel", "reduce_kernel"),
    "skinny": ("skinny_kernel", "reduce_kernel"),
    "skinny_parts": ("skinny_kernel",),
    "magnitude_gradient": ("magnitude_gradient_kernel", "reduce_kernel"),
}


def launches(arch: int, full: bool = False) -> Iterator[Compilation]:
    """Everything that can be launched on sm_<arch>, each specialisation once; full: every rank and dtype in every use,
    not the hardest alone."""
    seen: set[tuple[Any, ...]] = set()
    for label, calls in variants(arch, full):
        for run, inputs in calls:
            found = compilation(run, inputs, label)
            key = (found.kernel, found.signature, frozenset(found.constants), found.aligned, found.options)
            if key not in seen:
                seen.add(key)
                yield found


def variants(arch: int, full: bool = False) -> Iterator[tuple[str, Calls]]:
    """The launches of every kernel in every use and with every tile, labelled."""
    for kernel in TILES:
        if kernel.endswith("tma") and not features(arch).tma:
            continue
        tiles = tiles_of(kernel, arch)
        for number, tile in enumerate(tiles):
            for rank, dtype in VARIANTS:
                for position, use in enumerate(USES[kernel]):
                    if use.wide and dtype != torch.float16:
                        continue
                    masked = use.dropout and kernel.startswith("gemm")
                    # The tile's largest rank is the hardest, so it is compiled in every use; rank 16 and, with wgmma,
                    # rank 8 and fp16, which differ in the loads alone, in the first.
                    plain = rank == 16 and dtype == torch.bfloat16
                    first = position == 0 and (plain or (number == 0 and features(arch).mma == "wgmma"))
                    hardest = rank == (64 if allows(tile, 64, masked) else tile.max_rank)
                    hardest = hardest and (use.wide or dtype == torch.bfloat16)
                    if not allows(tile, rank, masked) or not (full or first or hardest):
                        continue
                    names = KERNELS.get(kernel, (f"{kernel}_kernel",))
                    calls = [call for call in record(arch, rank, dtype, use, {kernel: tile}) if call[0].name in names]
                    yield f"{use} {str(dtype)[6:]}", calls


def record(arch: int, rank: int, dtype: torch.dtype, use: Use, tiles: Mapping[str, Tile]) -> Calls:
    """The launches of one forward and backward with these tiles, by kernel; else with the dispatcher's."""
    calls: Calls = []
    launch.recorder = lambda run, inputs: calls.append((run, inputs))
    try:
        with using_tiles(tiles):
            run = {"paca": _run_paca, "group": _run_group, "dora": _run_dora}.get(use.scheme.partition(" ")[0], _run_lora)
            run(arch, rank, dtype, use)
    finally:
        launch.recorder = None
    return calls


def _sms(use: Use, arch: int) -> int:
    return SMS[arch] if use.sms is None else use.sms


def _run_lora(arch: int, rank: int, dtype: torch.dtype, use: Use) -> None:
    from ..lora.backward import build_backward
    from ..lora.bordered_weight import bordered
    from ..lora.forward import Spec, build_forward, in_parts

    m, n, k = use.m, use.n, use.k

    def meta(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(*shape, dtype=dtype, device="meta")

    forward, backward = split_scheme(use.scheme)
    assert forward is not None and backward is not None
    weight = meta(k, n).t() if use.conv1d else meta(n, k)
    buffer = None
    if forward == "bordered":
        weight, buffer = bordered(weight, rank)
    adapter = torch.float32 if use.wide else dtype
    x, bias, dy = meta(m, k), meta(n), meta(m, n)
    a, b = meta(rank, k, dtype=adapter), meta(n, rank, dtype=adapter)
    case = Case(m, n, k, rank, arch, _sms(use, arch), use.dropout, bordered=buffer is not None, fp32_adapters=use.wide)
    stride_w = (weight.stride(0), weight.stride(1))
    spec = Spec(case, Choice(forward, ""), dtype, x.device, k, stride_w, bias=True, keep=True, pdl=features(arch).pdl)
    p, seed = (0.1, torch.empty(1, dtype=torch.int64, device="meta")) if use.dropout else (0.0, None)
    _, s, mask = build_forward(spec)(x, weight, a, b, bias, 2.0, p, seed)
    needs = ("x" in use.needs, "a" in use.needs, "b" in use.needs)
    s = in_parts(s)
    kept, s = (s[0, :, :k], s[:, :, k:]) if forward == "bordered" else (x, s)
    run = build_backward(spec, Choice(backward, ""), needs, adapter, n, kept.stride(0), s, True)
    run(dy, kept, weight, a, b, s, mask, 2.0)


def _run_group(arch: int, rank: int, dtype: torch.dtype, use: Use) -> None:
    """Three members whose ranks add up to `rank`: what bounds a tile is the branch over all of them."""
    from ..lora.group_plan import GroupPlan

    def meta(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(*shape, dtype=dtype, device="meta")

    m, n, k = use.m, use.n, use.k
    forward, backward = split_scheme(use.scheme.removeprefix("group "))
    adapter = torch.float32 if use.wide else dtype
    ranks = (rank // 2, rank // 4, rank // 4)
    weights = [meta(k, n).t() if use.conv1d else meta(n, k) for _ in ranks]
    cases = [Case(m, n, k, r, arch, _sms(use, arch), use.dropout, fp32_adapters=use.wide, bias=True) for r in ranks]
    strides = [(w.stride(0), w.stride(1)) for w in weights]
    x = meta(m, k)
    plan = GroupPlan(cases, strides, k, dtype, adapter, x.device, True, forward, backward)
    a, b = meta(rank, k, dtype=adapter), [meta(n, r, dtype=adapter) for r in ranks]
    p, seed = (0.1, torch.empty(1, dtype=torch.int64, device="meta")) if use.dropout else (0.0, None)
    ys, s, mask = plan.forward(x, weights, a, b, [meta(n) for _ in ranks], 2.0, p, seed)
    plan.backward(ys, x, weights, a, b, s, mask, 2.0, True, True)


def _run_paca(arch: int, rank: int, dtype: torch.dtype, use: Use) -> None:
    from ..paca.autograd import Plan

    m, n, k = use.m, use.n, use.k
    x = torch.empty(m, k, dtype=dtype, device="meta")
    index = torch.empty(rank, dtype=torch.int64, device="meta")
    case = Case(m, n, k, rank, arch, _sms(use, arch))
    plan = Plan(x, n, rank, dtype, use.scheme.removeprefix("paca "), True, case)
    dy = torch.empty(m, n, dtype=dtype, device="meta")
    plan.grad_columns(dy, plan.selected(x, index), index, 2.0)


def _run_dora(arch: int, rank: int, dtype: torch.dtype, use: Use) -> None:
    from ..dora.autograd import Plan

    m, n, k = use.m, use.n, use.k

    def meta(*shape: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(*shape, dtype=dtype, device="meta")

    adapter = torch.float32 if use.wide else dtype
    weight = meta(k, n).t() if use.conv1d else meta(n, k)
    magnitude, z = meta(n, dtype=adapter), meta(m, n)
    plan = Plan(Case(m, n, k, rank, arch, _sms(use, arch), fp32_adapters=use.wide), weight, magnitude, True)
    squares = plan.squares(weight, meta(rank, k, dtype=adapter), meta(n, rank, dtype=adapter), 2.0)
    dy = plan.forward(z, magnitude, meta(n), squares)
    plan.backward(dy, z if "a" in use.needs else None, magnitude, squares, True)
