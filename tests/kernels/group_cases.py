"""What groups of layers and bordered weights must satisfy, where kernel_cases.py runs."""

from __future__ import annotations

import pytest
import torch

from kernels import LoRALinear, lora_linear, lora_linear_group, reference
from kernels.lora import keep_mask
from kernels.lora.bordered_weight import bordered
from kernels.runtime import launch
from tests.kernels.kernel_cases import B16, DTYPES, F32
from tests.kernels.kernel_correctness import DEVICE, LoraCase, compare, error, lora_results

GROUPS = {
    "qkv": ((72, 8), (40, 8), (40, 8)), "gate-up": ((56, 16), (56, 16)), "odd": ((33, 5), (72, 8), (24, 3)),
    "four": ((24, 8),) * 4,
}  # fmt: skip


@pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["", "dropout"])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("group", GROUPS)
def test_group(group: str, dtype: torch.dtype, dropout: float) -> None:
    gate_group(group, dtype, dropout)


# What the dispatcher has for sm_90 and for large layers, which the interpreter would not take by itself.
GROUP_SCHEMES = ("cublas/cublas", "epilogue_tma/epilogue_tma")


@pytest.mark.parametrize("conv1d", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["", "dropout"])
@pytest.mark.parametrize("group", ["qkv", "gate-up", "four"])
@pytest.mark.parametrize("scheme", GROUP_SCHEMES)
def test_group_by_scheme(scheme: str, group: str, dropout: float, conv1d: bool) -> None:
    if "tma" in scheme and DEVICE == "cuda" and torch.cuda.get_device_capability()[0] < 9:
        pytest.skip("TMA needs sm_90")
    gate_group(group, DTYPES[conv1d], dropout, scheme, conv1d, m=20)


def gate_group(
    group: str, dtype: torch.dtype, dropout: float, scheme: str | None = None, conv1d: bool = False, m: int = 37
) -> None:
    """A group against lora_linear on each, by name, under the shared mask, within the check's bound."""
    cases = [
        LoraCase(m, 80, n, r, dtype, scale=0.5, bias=i == 0, conv1d=conv1d) for i, (n, r) in enumerate(GROUPS[group])
    ]
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
            ys = lora_linear_group(leaf, weights, a, b, scale=0.5, biases=biases, scheme=scheme, **options)
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
    by = scheme or "epilogue/epilogue"
    forward = {"cublas": set(), "epilogue": {"gemm_kernel"}, "epilogue_tma": {"gemm_tma_kernel"}}[by.partition("/")[0]]
    if "cublas" in by or group == "four":  # more products than one launch sums
        backward = {"gemm_kernel"} if dropout else set()
    else:
        backward = {"gemm_sum_tma_kernel" if "tma" in by else "gemm_sum_kernel"}
    assert DEVICE != "cpu" or {name for name in launch.counts if "gemm" in name} == forward | backward
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
    """bordered: the layer in one GEMM on [W | B]."""
    case = LoraCase(37, 80, 72, 8, DTYPES[0], bias=True, conv1d=conv1d, dropout=dropout)
    t = case.tensors()
    t["weight"], buffer = bordered(t["weight"], 8)
    assert torch.equal(t["weight"], buffer[:, :80])
    keep = keep_mask(t["x"], dropout, 11) if dropout else None
    launch.counts.clear()
    options = {"scheme": "bordered"} | ({"seed": 11} if dropout else {})
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
    """LoRALinear.border() keeps the values, the state and the result, and gives the one-GEMM scheme its weight."""
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
    assert error(layer(x), before) < (1e-6 if DTYPES[0] == F32 else 1e-3)
    launch.counts.clear()
    after = lora_linear(
        x, layer.weight, layer.lora_a, layer.lora_b, scale=layer.scale, bias=layer.bias, scheme="bordered"
    )
    assert dict(launch.counts) == {"project_kernel": 1}
    assert error(after, before) < (1e-6 if DTYPES[0] == F32 else 1e-3)
    assert torch.equal(layer.weight, weight) and layer.state_dict()["base.weight"].shape == base.weight.shape
    layer.merge()
    layer.unmerge()
    assert torch.equal(layer.weight, weight)
