"""What the kernels must satisfy, run in the interpreter on every machine and on a GPU where there is one."""

from __future__ import annotations

import pytest
import torch

from kernels import lora_linear, paca_linear, reference
from kernels.lora import keep_mask
from kernels.runtime import launch
from tests.kernels.kernel_correctness import (
    DEVICE,
    LoraCase,
    PacaCase,
    error,
    gate_lora,
    gate_paca,
    poison,
)

F32, F16, B16 = torch.float32, torch.float16, torch.bfloat16
# fp32 runs in Triton in the interpreter only.
DTYPES = [F32, F16, B16] if DEVICE == "cpu" else [F16, B16]


@pytest.fixture(autouse=True)
def poison_and_count(monkeypatch):
    poison(monkeypatch)
    launch.counts.clear()


SHAPES = [(1, 40, 24, 5), (37, 81, 75, 8), (37, 100, 60, 16), (70, 72, 100, 24), (33, 64, 96, 32), (40, 80, 72, 64)]
VARIANTS = [{}, {"bias": True}, {"conv1d": True, "lead": True}, {"strided": True, "bias": True, "scale": 2.0}]
SCHEMES = [
    "cublas/cublas",
    "epilogue/epilogue",
    "epilogue/epilogue_fused_da",
    "single_pass/cublas_fused_da",
    "torch/torch",
]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("number", range(len(SHAPES)), ids=lambda i: "m{}-k{}-n{}-r{}".format(*SHAPES[i]))
def test_lora(number: int, dtype: torch.dtype, scheme: str) -> None:
    m, k, n, r = SHAPES[number]
    variant = VARIANTS[(number + SCHEMES.index(scheme)) % len(VARIANTS)]
    gate_lora(LoraCase(m, k, n, r, dtype, **variant), scheme)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(v) or "plain")
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
def test_lora_as_dispatched(dtype: torch.dtype, variant: dict) -> None:
    gate_lora(LoraCase(50, 48, 40, 8, dtype, **variant))
    assert launch.counts, "no kernel ran"


@pytest.mark.parametrize("conv1d", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("shape", [(37, 80, 72, 16), (70, 96, 104, 24)], ids=str)
def test_lora_by_descriptors(shape: tuple, dtype: torch.dtype, conv1d: bool) -> None:
    gate_lora(LoraCase(*shape, dtype, conv1d=conv1d, bias=True), "epilogue_tma/epilogue_tma")
    assert launch.counts["gemm_tma_kernel"] == 2


@pytest.mark.parametrize("scheme", ["epilogue/epilogue", "single_pass/cublas"])
@pytest.mark.parametrize("dtype", [F16, B16], ids=lambda d: str(d)[6:])
def test_lora_masters_in_fp32(dtype: torch.dtype, scheme: str) -> None:
    gate_lora(LoraCase(37, 80, 72, 8, dtype, adapters=F32), scheme)


@pytest.mark.parametrize("variant", [*VARIANTS, {"index": torch.int32}], ids=lambda v: "-".join(v) or "plain")
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("scheme", ["gather", "fused", "torch"])
def test_paca(scheme: str, dtype: torch.dtype, variant: dict) -> None:
    for m, k, n, r in SHAPES[:: 1 if scheme == "gather" else 3]:
        gate_paca(PacaCase(m, k, n, r, dtype, **variant), scheme)


@pytest.mark.parametrize("dtype", [F16, B16], ids=lambda d: str(d)[6:])
def test_paca_masters_in_fp32(dtype: torch.dtype) -> None:
    gate_paca(PacaCase(70, 80, 72, 16, dtype, columns=F32))


def leaves(dropout: float = 0.0, dtype: torch.dtype = F16):
    t = LoraCase(37, 80, 72, 8, dtype, dropout=dropout).tensors()
    return t, *(t[name].requires_grad_() for name in ("x", "a", "b"))


COUNTS = {
    "cublas/cublas": {"project": 1, "branch_gradients": 1, "skinny": 1, "reduce": 1},
    "epilogue/epilogue": {"project": 1, "gemm": 2, "branch_gradients": 1, "skinny": 1, "reduce": 1},
    "epilogue/epilogue_fused_da": {"project": 1, "gemm": 2, "branch_gradients": 1, "reduce": 1},
    "single_pass/epilogue_fused_da": {"single_pass": 1, "gemm": 1, "branch_gradients": 1, "reduce": 1},
    "epilogue_tma/epilogue_tma": {"project": 1, "gemm_tma": 2, "branch_gradients": 1, "skinny": 1, "reduce": 1},
}


@pytest.mark.parametrize("scheme", COUNTS)
def test_launches(scheme: str) -> None:
    t, x, a, b = leaves()
    lora_linear(x, t["weight"], a, b, scale=2, scheme=scheme).backward(t["dy"])
    expected = dict(COUNTS[scheme])
    if launch.counts["gemm_kernel"] and "gemm" not in expected:
        expected["gemm"] = 1  # dS' came in parts, which cuBLAS cannot add
    assert dict(launch.counts) == {f"{name}_kernel": count for name, count in expected.items()}


def test_launches_of_paca() -> None:
    x, weight = torch.randn(37, 80, device=DEVICE, dtype=F16), torch.randn(72, 80, device=DEVICE, dtype=F16)
    index = torch.arange(3, 19, device=DEVICE)
    columns = weight[:, index].clone().requires_grad_()
    y = paca_linear(x, weight, columns, index)
    assert dict(launch.counts) == {"gather_kernel": 1}
    y.sum().backward()
    assert launch.counts["skinny_kernel"] == 1
    launch.counts.clear()
    with torch.no_grad():
        paca_linear(x, weight, columns, index)
    assert not launch.counts, "nothing is gathered where nothing will be differentiated"


@pytest.mark.parametrize("asked", ["x", "a", "b", "xa", "xb", "ab", "bias"])
@pytest.mark.parametrize("scheme", ["epilogue/epilogue", "single_pass/epilogue_fused_da", "cublas/cublas"])
def test_only_requested_gradients(asked: str, scheme: str) -> None:
    case = LoraCase(37, 80, 72, 8, F32, bias=True) if DEVICE == "cpu" else LoraCase(37, 80, 72, 8, F16, bias=True)
    t = case.tensors()
    names = ["bias"] if asked == "bias" else list(asked)
    got = {}
    for place, function, options in (("ours", lora_linear, {"scheme": scheme}), ("eager", reference.lora_linear, {})):
        leaf = {k: None if v is None else v.detach().requires_grad_(k in names) for k, v in t.items()}
        y = function(leaf["x"], leaf["weight"], leaf["a"], leaf["b"], scale=2.0, bias=leaf["bias"], **options)
        y.backward(t["dy"])
        got[place] = {k: v.grad for k, v in leaf.items() if v is not None and v.grad is not None}
    assert list(got["ours"]) == list(got["eager"]) == [k for k in t if k in names]
    for name in names:
        assert error(got["ours"][name], got["eager"][name]) < (1e-5 if case.dtype == F32 else 3e-3)
    counts = dict(launch.counts)
    if asked == "bias":
        assert "branch_gradients_kernel" not in counts and "skinny_kernel" not in counts
    if "x" not in names:
        assert counts.get("gemm_kernel", 0) <= 1, "dX was computed, and nobody asked for it"


def test_trainable_weight_gets_its_gradient() -> None:
    t, x, a, b = leaves(dtype=F16)
    weight = t["weight"].requires_grad_()
    lora_linear(x, weight, a, b, scale=1.0).backward(t["dy"])
    assert error(weight.grad, t["dy"].double().t() @ x.detach().double()) < 1e-3


@pytest.mark.parametrize("scheme", ["epilogue/epilogue", "single_pass/epilogue_fused_da", "cublas/cublas"])
def test_gradient_of_stride_zero(scheme: str) -> None:
    t, x, a, b = leaves()
    lora_linear(x, t["weight"], a, b, scale=1.0, scheme=scheme).sum().backward()
    ones = torch.ones_like(t["dy"])
    grads = torch.autograd.grad(lora_linear(x, t["weight"], a, b, scale=1.0, scheme=scheme), (x, a, b), ones)
    assert all(torch.equal(p.grad, g) for p, g in zip((x, a, b), grads, strict=True))
    index = torch.arange(8, device=DEVICE)
    columns = t["weight"][:, index].clone().requires_grad_()
    paca_linear(x.detach(), t["weight"], columns, index).sum().backward()
    dense = torch.autograd.grad(paca_linear(x.detach(), t["weight"], columns, index), columns, ones)[0]
    assert torch.equal(columns.grad, dense)


@pytest.mark.parametrize("scheme", ["epilogue/epilogue", "epilogue/epilogue_fused_da", "cublas/cublas"])
@pytest.mark.parametrize("switch", [False, True], ids=["as-is", "use_deterministic_algorithms"])
def test_same_bits_every_time(scheme: str, switch: bool, monkeypatch) -> None:
    """No kernel uses an atomic, so the mode that torch.use_deterministic_algorithms asks for is the only one."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(switch)
    try:
        t, x, a, b = leaves(0.1)
        runs = [
            torch.autograd.grad(
                lora_linear(x, t["weight"], a, b, scale=1.0, dropout_p=0.1, seed=3, scheme=scheme), (x, a, b), t["dy"]
            )
            for _ in range(2 if DEVICE == "cpu" else 3)
        ]
    finally:
        torch.use_deterministic_algorithms(before)
    assert all(torch.equal(p, q) for run in runs[1:] for p, q in zip(run, runs[0], strict=True))


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_autocast(dropout: float) -> None:
    """fp32 everything under autocast: 16-bit output, fp32 gradients, the bound of the 16-bit dtype."""
    case = LoraCase(37, 80, 72, 8, F32, dropout=dropout)
    t = case.tensors()
    keep = keep_mask(t["x"], dropout, 11) if dropout else None
    grads, outs = [], []
    for function, options in (
        (lora_linear, {"seed": 11 if dropout else None, "scheme": "epilogue/epilogue"}),
        (reference.lora_linear, {"keep": keep}),
    ):
        x, a, b = (t[name].detach().requires_grad_() for name in ("x", "a", "b"))
        with torch.autocast(DEVICE, dtype=B16):
            y = function(x, t["weight"], a, b, scale=case.scale, dropout_p=dropout, **options)
        assert y.dtype == B16
        grads.append(torch.autograd.grad(y, (x, a, b), t["dy"].to(B16)))
        outs.append(y)
    assert all(g.dtype == F32 for g in grads[0])
    for ours, eager in zip((outs[0], *grads[0]), (outs[1], *grads[1]), strict=True):
        assert error(ours, eager) < 8e-3
    assert launch.counts["gemm_kernel"] == 2
    index = torch.arange(8, device=DEVICE)
    columns = t["weight"][:, index].clone().requires_grad_()
    with torch.autocast(DEVICE, dtype=B16):
        y = paca_linear(t["x"], t["weight"], columns, index)
    y.sum().backward()
    assert y.dtype == B16 and columns.grad.dtype == F32


def test_odd_alignment_and_empty_input() -> None:
    t, x, a, b = leaves(dtype=DTYPES[0])
    storage = torch.empty(37 * 80 + 1, dtype=DTYPES[0], device=DEVICE)
    shifted = storage[1:].view(37, 80).copy_(x.detach())
    same = lora_linear(x, t["weight"], a, b, scale=1.0)
    assert torch.equal(lora_linear(shifted, t["weight"], a, b, scale=1.0), same)
    empty = lora_linear(x[:0], t["weight"], a, b, scale=1.0)
    assert empty.shape == (0, 72)
    empty.sum().backward()
    assert paca_linear(
        x[:0].detach(), t["weight"], t["weight"][:, :4].clone(), torch.arange(4, device=DEVICE)
    ).shape == (0, 72)
