"""What the kernels must satisfy, run in the interpreter on every machine and on a GPU where there is one."""

from __future__ import annotations

import pytest
import torch

from kernels import LoRALinear, lora_linear, lora_linear_group, paca_linear, reference
from kernels.lora import keep_mask
from kernels.lora.bordered_weight import bordered
from kernels.runtime import launch
from tests.kernels.kernel_correctness import (
    DEVICE,
    LoraCase,
    PacaCase,
    compare,
    error,
    gate_lora,
    gate_paca,
    lora_results,
    poisoned,
)

F32, F16, B16 = torch.float32, torch.float16, torch.bfloat16
# fp32 runs in Triton in the interpreter only.
DTYPES = [F32, F16, B16] if DEVICE == "cpu" else [F16, B16]


@pytest.fixture(autouse=True)
def poison_and_count(monkeypatch):
    monkeypatch.setattr(launch, "empty", poisoned)
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


@pytest.mark.parametrize("scheme", ["cublas/cublas", "epilogue/epilogue", "epilogue/epilogue_fused_da"])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("shape", [(37, 81, 75, 8), (50, 96, 64, 24)], ids=str)
def test_lora_dropout(shape: tuple, dtype: torch.dtype, scheme: str) -> None:
    gate_lora(LoraCase(*shape, dtype, dropout=0.1, bias=True), scheme)


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


def test_dropout_mask() -> None:
    x = torch.ones(101, 163, device=DEVICE, dtype=F16)
    keep = keep_mask(x, 0.1, 3)
    n = keep.numel()
    assert abs(keep.double().mean().item() - 0.9) < 4 * (0.09 / n) ** 0.5
    for axis in (0, 1):
        spread = keep.double().mean(axis)
        assert (spread - 0.9).abs().max() < 6 * (0.09 / keep.shape[axis]) ** 0.5
    assert torch.equal(keep, keep_mask(x, 0.1, 3)) and not torch.equal(keep[:20], keep_mask(x[:20], 0.1, 4))
    assert torch.equal(keep_mask(x[:50], 0.1, 3), keep[:50]), "a row's mask does not depend on the other rows"
    assert not torch.equal(keep_mask(x[:20], 0.1, 2**40 + 3), keep[:20])
    halves = keep_mask(x, 0.5, 3)
    assert bool((keep | ~halves).all()), "one draw per element, whatever the rate"


def test_dropout_survivors_are_scaled_and_masks_agree() -> None:
    """With W = 0, A = ones and B = ones, y and dx show the mask directly."""
    m, k, n = 37, 80, 24
    x = torch.ones(m, k, device=DEVICE, dtype=F32 if DEVICE == "cpu" else F16).requires_grad_()
    a, b = x.new_ones(1, k).requires_grad_(), x.new_ones(n, 1)
    y = lora_linear(x, x.new_zeros(n, k), a, b, scale=1.0, dropout_p=0.25, seed=9, scheme="epilogue/epilogue")
    keep = keep_mask(x, 0.25, 9).to(x.dtype)
    torch.testing.assert_close(y[:, 0], keep.sum(1) / 0.75, rtol=2e-3, atol=0)
    y.sum().backward()
    torch.testing.assert_close(x.grad, keep * n / 0.75, rtol=2e-3, atol=0)
    torch.testing.assert_close(a.grad[0], keep.sum(0) * n / 0.75, rtol=2e-3, atol=0)


def test_dropout_seed_is_drawn_where_none_is_given() -> None:
    t, x, a, b = leaves()
    torch.manual_seed(1)
    first = lora_linear(x, t["weight"], a, b, scale=1.0, dropout_p=0.5)
    second = lora_linear(x, t["weight"], a, b, scale=1.0, dropout_p=0.5)
    torch.manual_seed(1)
    again = lora_linear(x, t["weight"], a, b, scale=1.0, dropout_p=0.5)
    assert torch.equal(first, again) and not torch.equal(first, second)


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


def test_double_backward_is_refused() -> None:
    t, x, a, b = leaves(dtype=DTYPES[0])
    grad = torch.autograd.grad(lora_linear(x, t["weight"], a, b, scale=1.0).sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="cannot be differentiated twice"):
        grad.sum().backward()


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


GROUPS = {"qkv": ((72, 8), (40, 8), (40, 8)), "gate-up": ((56, 16), (56, 16)), "odd": ((33, 5), (72, 8), (24, 3))}


@pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["", "dropout"])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("group", GROUPS)
def test_group(group: str, dtype: torch.dtype, dropout: float) -> None:
    """A group against lora_linear on each, by name, under the shared mask, within the check's bound."""
    cases = [LoraCase(37, 80, n, r, dtype, scale=0.5, bias=i == 0) for i, (n, r) in enumerate(GROUPS[group])]
    t = [case.tensors() for case in cases]
    x = t[0]["x"]
    keep = keep_mask(x, dropout, 11) if dropout else None

    def results(cast, grouped: bool):
        leaf = cast(x).detach().requires_grad_()
        a, b = ([cast(one[name]).detach().requires_grad_() for one in t] for name in "ab")
        biases = [None if one["bias"] is None else cast(one["bias"]).detach().requires_grad_() for one in t]
        weights = [cast(one["weight"]) for one in t]
        if grouped:
            options = {"dropout_p": dropout, "seed": 11 if dropout else None}
            ys = lora_linear_group(leaf, weights, a, b, scale=0.5, biases=biases, **options)
        else:
            masks = {"dropout_p": dropout, "keep": None if keep is None else keep.to(leaf.device)}
            ys = [
                reference.lora_linear(leaf, w, p, q, scale=0.5, bias=bias, **masks)
                for w, p, q, bias in zip(weights, a, b, biases, strict=True)
            ]
        leaves = [leaf, *a, *b, *(bias for bias in biases if bias is not None)]
        grads = torch.autograd.grad(ys, leaves, [cast(one["dy"]) for one in t])
        names = ["dx", *(f"da{i}" for i in range(len(a))), *(f"db{i}" for i in range(len(b))), "dbias"]
        return {f"y{i}": y for i, y in enumerate(ys)} | dict(zip(names, grads, strict=True))

    ours = results(lambda v: v, True)
    assert launch.counts["project_kernel"] == 1 + bool(dropout) and launch.counts["skinny_kernel"] == 1
    compare(ours, results(lambda v: v, False), results(lambda v: v.cpu().double(), False), dtype, 80)


def test_group_under_autocast() -> None:
    """fp32 everything under autocast is one group in 16 bits still, with fp32 gradients, and draws its own mask."""
    t = [LoraCase(37, 80, n, 8, F32).tensors() for n in (72, 40)]
    x = t[0]["x"].detach().requires_grad_()
    a, b = ([one[name].detach().requires_grad_() for one in t] for name in "ab")
    weights = [one["weight"] for one in t]
    with torch.autocast(DEVICE, dtype=B16):
        ys = lora_linear_group(x, weights, a, b, scale=0.5, dropout_p=0.5)
        again = lora_linear_group(x, weights, a, b, scale=0.5, dropout_p=0.5)
    assert launch.counts["project_kernel"] == 2 and {y.dtype for y in ys} == {B16}
    assert all(not torch.equal(y, z) for y, z in zip(ys, again, strict=True))
    grads = torch.autograd.grad(ys, (x, *a, *b), [one["dy"].to(B16) for one in t])
    assert all(g.dtype == F32 for g in grads)
    with torch.autocast(DEVICE, dtype=B16):
        alone = [reference.lora_linear(x, w, p, q, scale=0.5) for w, p, q in zip(weights, a, b, strict=True)]
        together = lora_linear_group(x, weights, a, b, scale=0.5)
    assert all(error(ours, eager) < 8e-3 for ours, eager in zip(together, alone, strict=True))


@pytest.mark.parametrize("conv1d", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["", "dropout"])
def test_bordered_weight(conv1d: bool, dropout: float) -> None:
    """bordered: the layer in one GEMM on [W | B]; the dispatcher takes it for bordered weights."""
    case = LoraCase(37, 80, 72, 8, DTYPES[0], bias=True, conv1d=conv1d, dropout=dropout)
    t = case.tensors()
    t["weight"], buffer = bordered(t["weight"], 8)
    assert torch.equal(t["weight"], buffer[:, :80])
    keep = keep_mask(t["x"], dropout, 11) if dropout else None
    launch.counts.clear()
    options = {"seed": 11} if dropout else {}
    ours = lora_results(lora_linear, t, case, **options)
    assert launch.counts["project_kernel"] == 1 and launch.counts["single_pass_kernel"] == 0
    eager = lora_results(reference.lora_linear, t, case, keep=keep)
    truth_keep = None if keep is None else keep.cpu()
    compare(ours, eager, lora_results(reference.lora_linear, t, case, torch.float64, keep=truth_keep), case.dtype, 80)
    assert torch.equal(buffer[:, 80:88], t["b"])
    del buffer
    with pytest.raises(ValueError, match="scheme is 'bordered', expected a weight with room"):
        lora_linear(t["x"], t["weight"].clone(), t["a"], t["b"], scale=1.0, scheme="bordered")


@pytest.mark.parametrize("conv1d", [False, True], ids=["linear", "conv1d"])
def test_bordered_module(conv1d: bool) -> None:
    """LoRALinear.border() keeps the values, the state and the result, and takes the one-GEMM scheme."""
    torch.manual_seed(0)
    base = torch.nn.Linear(80, 72)
    if conv1d:
        base = type("Conv1D", (torch.nn.Module,), {})()
        base.nf, base.weight = 72, torch.nn.Parameter(torch.randn(80, 72) / 9)
        base.bias = torch.nn.Parameter(torch.randn(72))
    layer = LoRALinear(base, 8, 8).to(DEVICE, DTYPES[0])
    torch.nn.init.normal_(layer.lora_b)
    x = torch.randn(37, 80, device=DEVICE, dtype=DTYPES[0])
    before, weight = layer(x), layer.weight.clone()
    layer.border()
    launch.counts.clear()
    after = layer(x)
    assert dict(launch.counts) == {"project_kernel": 1}
    assert error(after, before) < (1e-6 if DTYPES[0] == F32 else 1e-3)
    assert torch.equal(layer.weight, weight) and layer.state_dict()["base.weight"].shape == base.weight.shape
    layer.merge()
    layer.unmerge()
    assert torch.equal(layer.weight, weight)


@pytest.mark.parametrize("scheme", [None, "torch"])
def test_dropout_without_a_kernel_to_draw_it(scheme: str | None) -> None:
    """Ranks above the tables run in cuBLAS, which draws no mask: with dropout the reference takes over."""
    t = LoraCase(20, 80, 72, 8 if scheme else 70, DTYPES[0]).tensors()
    arguments = (t["x"], t["weight"], t["a"], t["b"])
    ours = lora_linear(*arguments, scale=1.0, dropout_p=0.5, seed=3, scheme=scheme)
    assert torch.equal(ours, reference.lora_linear(*arguments, scale=1.0, dropout_p=0.5, seed=3))
    assert not torch.equal(ours, lora_linear(*arguments, scale=1.0, scheme=scheme))
