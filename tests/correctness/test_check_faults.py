"""The correctness check: every fault that is planted is found, with its tensor named."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.case import Case
from bench.correctness.check import check
from bench.methods.adapt import adapt_lora, trained
from bench.methods.lora.merged import MergedLoRALinear
from kernels import LoRALinear
from tests.correctness.planted import Forward, case_of, lora_formula, lora_impl, named
from tests.models.tiny import make_case


def _rows_missing(layer: LoRALinear, x: Tensor) -> Tensor:
    y = lora_formula(layer, x)
    keep = torch.arange(y.shape[1])[:, None] < y.shape[1] - 3
    return y - (y * ~keep).detach()


def _one_nan(layer: LoRALinear, x: Tensor) -> Tensor:
    y = lora_formula(layer, x)
    nan = torch.zeros_like(y)
    nan[0, -1, -1] = math.nan
    return y + nan


def _without_gradient(t: Tensor) -> Tensor:
    return t.detach() + 0 * t


def _stale_b(layer: Any, x: Tensor) -> Tensor:
    if not hasattr(layer, "kept"):
        layer.kept = layer.lora_b.detach().clone()
    return lora_formula(layer, x, b=layer.kept + layer.lora_b - layer.lora_b.detach())


def _now_and_then(layer: Any, x: Tensor) -> Tensor:
    """Wrong in every third call, as a race is."""
    layer.calls = getattr(layer, "calls", 0) + 1
    y = lora_formula(layer, x)
    return y + (0.1 * y).detach() if layer.calls % 3 == 0 else y


LORA: dict[str, tuple[Forward, set[str], str]] = {
    "doubled scale": (lambda m, x: lora_formula(m, x, 2 * m.scale), {"output"}, ""),
    "scale left out": (lambda m, x: lora_formula(m, x, 1.0), {"output"}, ""),
    "a third done as 0.3": (lambda m, x: lora_formula(m, x, round(m.scale, 1)), {"output"}, "at scale 1/3"),
    "no bias": (lambda m, x: lora_formula(m, x) - m.bias, {"output"}, ""),
    "last rows missing": (_rows_missing, {"output"}, ""),
    "NaN": (_one_nan, {"output"}, ""),
    "no branch": (lambda m, x: m.base(x) + 0 * lora_formula(m, x), {"output"}, ""),
    "dA zero": (lambda m, x: lora_formula(m, x, a=_without_gradient(m.lora_a)), {"lora_a"}, ""),
    "dB zero": (lambda m, x: lora_formula(m, x, b=_without_gradient(m.lora_b)), {"lora_b"}, ""),
    "dX without the branch": (lambda m, x: lora_formula(m, x, branch_x=x.detach()), {"x"}, ""),
    "stale B": (_stale_b, {"output"}, "after a step"),
    "now and then": (_now_and_then, {"output"}, ""),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fault", LORA)
def test_faults_of_lora(models: dict[str, str], plant: Any, fault: str, precision: str) -> None:
    forward, tensors, where = LORA[fault]
    impl = plant("lora", lora_impl(forward))
    named(check(case_of(models, "gpt2", "lora", "linear", impl=impl, precision=precision), "cpu"), tensors, where)


@pytest.mark.parametrize("level", ["block", "model"])
@pytest.mark.parametrize("fault", ["doubled scale", "a third done as 0.3", "no bias", "dA zero", "NaN", "stale B"])
def test_faults_of_lora_inside_of_models(models: dict[str, str], plant: Any, fault: str, level: str) -> None:
    forward, tensors, where = LORA[fault]
    if "output" in tensors and level == "model" and "1/3" not in where:
        tensors = {"loss", "logits"}
    impl = plant("lora", lora_impl(forward))
    named(check(case_of(models, "gpt2", "lora", level, impl=impl, precision="bf16"), "cpu"), tensors, where)


@pytest.mark.parametrize("fault", ["doubled scale", "last rows missing", "NaN", "no branch", "dA zero", "dB zero"])
@pytest.mark.parametrize("level", ["linear", "block"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_faults_that_came_with_the_timing(
    models: dict[str, str], plant: Any, fault: str, level: str, precision: str
) -> None:
    """The brief check, on half as many tokens."""
    forward, tensors, where = LORA[fault]
    case = case_of(models, "gpt2", "lora", level, precision=precision)
    assert check(case, "cpu", seed=1, brief=True).passed
    impl = plant("lora", lora_impl(forward))
    named(check(replace(case, impl=impl), "cpu", seed=1, brief=True), tensors, where)


class _TwoMasks(torch.autograd.Function):
    """drop(x), whose backward draws again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        ctx.p = p
        return F.dropout(x, p)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return F.dropout(grads[0], ctx.p), None


def _dropped(drop: Callable[[Any, Tensor], Tensor]) -> Forward:
    """drop acts only where dropout is on."""
    return lambda m, x: lora_formula(m, x, branch_x=drop(m, x) if m.dropout else x)


def _keep(x: Tensor, p: float, seed: int | None = None, shape: Any = None) -> Tensor:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return (torch.rand(shape or x.shape, generator=generator) >= p).to(x.dtype)


def _da_by_another_mask(m: Any, x: Tensor) -> Tensor:
    """dA from an x that was dropped by another mask."""
    dropped, other = F.dropout(x, m.dropout), F.dropout(x, m.dropout).detach()
    a = m.lora_a.detach()
    s = F.linear(dropped, a) + F.linear(other, m.lora_a - a)
    return m.base(x) + m.scale * F.linear(s, m.lora_b)


MASKS: dict[str, tuple[Forward, set[str], str]] = {
    "not scaled": (_dropped(lambda m, x: x * _keep(x, m.dropout)), {"mask"}, "not 1.111"),
    "scaled by 1 + p": (_dropped(lambda m, x: x * _keep(x, m.dropout) * 1.1), {"mask"}, "multiplies survivors"),
    "another rate": (_dropped(lambda m, x: F.dropout(x, 0.15)), {"mask"}, "of the elements at dropout 0.1"),
    "no dropout": (_dropped(lambda m, x: x), {"mask"}, "drops 0 of"),
    "the same at every call": (_dropped(lambda m, x: x * _keep(x, 0.1, 5) / 0.9), {"mask"}, "the same one again"),
    "one for all tokens": (_dropped(lambda m, x: x * _keep(x, 0.1, None, x.shape[-1:]) / 0.9), {"mask"}, "correlated"),
    "in pairs": (
        _dropped(lambda m, x: x * _keep(x[..., ::2], 0.1).repeat_interleave(2, -1) / 0.9),
        {"mask"},
        "correlated",
    ),
    "another in backward": (
        _dropped(lambda m, x: _TwoMasks.apply(x, m.dropout)),
        {"output"},
        "the mask that the gradient of x shows",
    ),
    "none in backward": (
        _dropped(lambda m, x: x + (F.dropout(x, m.dropout) - x).detach()),
        {"mask"},
        "drops 0 of the elements",
    ),
    "another for dA": (
        lambda m, x: _da_by_another_mask(m, x) if m.dropout else lora_formula(m, x),
        {"lora_a"},
        "the mask that the gradient of x shows",
    ),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fault", MASKS)
def test_faults_of_dropout(plant: Any, fault: str, precision: str) -> None:
    forward, tensors, where = MASKS[fault]
    axes = {"layer": "square-96", "batch": 1, "seq": 64, "precision": precision, "dropout": 0.1}
    assert check(make_case(None, "lora", "linear", **axes), "cpu").passed
    named(
        check(make_case(None, "lora", "linear", impl=plant("lora", lora_impl(forward)), **axes), "cpu"), tensors, where
    )


def test_dropout_is_checked_at_level_block(models: dict[str, str], plant: Any) -> None:
    impl = plant("lora", lora_impl(MASKS["not scaled"][0]))
    named(check(case_of(models, "llama", "lora", "block", impl=impl, dropout=0.1), "cpu"), {"mask"}, "multiplies")


class _MergedOnce(MergedLoRALinear):
    """Merged when B is drawn, at building and by the check, and never again."""

    def refresh(self) -> None:
        self.merges = getattr(self, "merges", 0) + 1
        if self.merges <= 2:
            super().refresh()


class _HalfMerged(MergedLoRALinear):
    """dX by the pretrained weight alone."""

    def forward(self, x: Tensor) -> Tensor:
        base = F.linear(x, self.weight)
        return super().forward(x.detach()) + (base - base.detach())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("level", ["linear", "block"])
@pytest.mark.parametrize(("kind", "tensor", "where"), [(_MergedOnce, "output", "after a step"), (_HalfMerged, "x", "")])
def test_faults_of_merging(
    models: dict[str, str], plant: Any, kind: Any, tensor: str, where: str, level: str, precision: str
) -> None:
    impl = plant("lora", lambda model, case: adapt_lora(model, case, kind))
    result = check(case_of(models, "gpt2", "lora", level, impl=impl, precision=precision), "cpu")
    named(result, {tensor, "lora_a", "lora_b"} if level == "block" else {tensor}, where)


def _no_bias(model: nn.Module, case: Case) -> Any:
    for name, _ in model.named_parameters():
        if name.endswith("c_proj.bias"):
            layer = model.get_submodule(name.rpartition(".")[0])
            layer.register_forward_hook(lambda m, _, y: y - m.bias)
    return trained(model)


def _half_frozen(model: nn.Module, case: Case) -> Any:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("ln_" not in name)
    return trained(model)


@pytest.mark.parametrize("level", ["block", "model"])
def test_faults_of_full(models: dict[str, str], plant: Any, level: str) -> None:
    result = check(case_of(models, "gpt2", "full", level, impl=plant("full", _no_bias)), "cpu")
    named(result, {"output", "logits"}, "bias")
    result = check(case_of(models, "gpt2", "full", level, impl=plant("full", _half_frozen)), "cpu")
    named(result, {"weight", "bias"}, "should train and does not")
    assert ".ln_1." in result.tensor


def test_leaves_that_are_not_as_declared(models: dict[str, str], plant: Any) -> None:
    """A layer that was not adapted, a frozen weight with a gradient, a trained tensor without one."""

    def one_layer_less(model: nn.Module, case: Case) -> Any:
        found = lora_impl(LORA["stale B"][0])(model, case)
        layer = model.get_submodule("block.attn.c_attn")
        model.get_submodule("block.attn").c_attn = layer.base
        return [(name, p) for name, p in found if "c_attn" not in name]

    result = check(case_of(models, "gpt2", "lora", "block", impl=plant("lora", one_layer_less)), "cpu")
    named(result, {"lora_a"}, "block.attn.c_attn.lora_a should train and does not")

    def thawed(model: nn.Module, case: Case) -> Any:
        found = lora_impl(lambda m, x: lora_formula(m, x))(model, case)
        model.get_parameter("layer.base.weight").requires_grad_(True)
        return found

    result = check(case_of(models, "gpt2", "lora", "linear", impl=plant("lora", thawed)), "cpu")
    named(result, {"weight"}, "is frozen and got a gradient")

    impl = plant("lora", lora_impl(lambda m, x: lora_formula(m, x, a=m.lora_a.detach())))
    named(check(case_of(models, "gpt2", "lora", "linear", impl=impl), "cpu"), {"lora_a"}, "has none")
