"""The correctness check of DoRA: every fault that is planted is found, with its tensor named."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.case import Case
from bench.correctness.check import check
from bench.methods.adapt import Trained, adapt_lora
from kernels import DoRALinear
from tests.correctness.planted import case_of, named

OUTPUT = {"output", "logits"}


def _formula(layer: DoRALinear, x: Tensor, norm: Tensor | None = None, bias: Tensor | float = 1.0) -> Tensor:
    """The right formula, with parts to replace: the norm, and what the bias is multiplied with."""
    whole = layer.weight + layer.scale * (layer.lora_b @ layer.lora_a)
    g = layer.magnitude / (whole.norm(dim=1).detach() if norm is None else norm)
    y = (x @ whole.t()) * g
    return y if layer.bias is None else y + bias * layer.bias


def _norm(layer: DoRALinear, scale: float) -> Tensor:
    return (layer.weight + scale * (layer.lora_b @ layer.lora_a)).norm(dim=1)


def _of_first_norm(layer: Any, x: Tensor) -> Tensor:
    if not hasattr(layer, "first"):
        layer.first = _norm(layer, layer.scale).detach()
    return _formula(layer, x, layer.first)


class _GradientOffByTheNorm(torch.autograd.Function):
    """m as it is, whose gradient is multiplied with the norm."""

    @staticmethod
    def forward(ctx: Any, m: Tensor, norm: Tensor) -> Tensor:
        ctx.save_for_backward(norm)
        return m.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.saved_tensors[0], None


def _off_by_the_norm(layer: DoRALinear, x: Tensor) -> Tensor:
    norm = _norm(layer, layer.scale).detach()
    return _formula(layer, x, norm * layer.magnitude / _GradientOffByTheNorm.apply(layer.magnitude, norm))


def _scaled_bias(layer: DoRALinear, x: Tensor) -> Tensor:
    norm = _norm(layer, layer.scale).detach()
    return _formula(layer, x, norm, bias=(layer.magnitude / norm).detach())


FAULTS: dict[str, tuple[Callable[[Any, Tensor], Tensor], set[str], str]] = {
    "no g": (lambda layer, x: _formula(layer, x, layer.magnitude), OUTPUT, ""),
    "norm not detached": (lambda layer, x: _formula(layer, x, _norm(layer, layer.scale)), {"lora_a", "lora_b"}, ""),
    "norm without s": (lambda layer, x: _formula(layer, x, _norm(layer, 1.0).detach()), OUTPUT, ""),
    "norm of W alone": (lambda layer, x: _formula(layer, x, _norm(layer, 0.0)), OUTPUT, ""),
    "norm of the first call": (_of_first_norm, OUTPUT, "after a step"),
    "magnitude's gradient off by the norm": (_off_by_the_norm, {"magnitude"}, ""),
    "bias scaled by g": (_scaled_bias, OUTPUT, ""),
}


def _planted(forward: Callable[[Any, Tensor], Tensor], magnitude: float = 1.0) -> Callable[..., Trained]:
    """An impl of dora whose layers compute `forward(layer, x)`, their magnitudes built times `magnitude`."""

    class Planted(DoRALinear):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            with torch.no_grad():
                self.magnitude.mul_(magnitude)

        def forward(self, x: Tensor) -> Tensor:
            return forward(self, x)

    def apply(model: nn.Module, case: Case) -> Trained:
        return adapt_lora(model, case, Planted)

    return apply


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("level", ["linear", "block", "model"])
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_dora(models: dict[str, str], plant: Any, fault: str, level: str, precision: str) -> None:
    forward, tensors, where = FAULTS[fault]
    impl = plant("dora", _planted(forward))
    named(check(case_of(models, "gpt2", "dora", level, impl=impl, precision=precision), "cpu"), tensors, where)


def test_a_magnitude_that_does_not_start_as_the_norm(models: dict[str, str], plant: Any) -> None:
    impl = plant("dora", _planted(_formula, magnitude=1.01))
    named(check(case_of(models, "gpt2", "dora", "linear", impl=impl), "cpu"), {"magnitude"}, "as built")


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("level", ["linear", "block", "model"])
def test_the_right_formula_passes(models: dict[str, str], plant: Any, level: str, family: str) -> None:
    impl = plant("dora", _planted(_formula))
    found = check(case_of(models, family, "dora", level, impl=impl), "cpu")
    assert found.passed, found.detail


@pytest.mark.parametrize("impl", ["eager", "peft"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_dropout_of_dora(models: dict[str, str], family: str, impl: str) -> None:
    found = check(case_of(models, family, "dora", "linear", impl=impl, dropout=0.2), "cpu")
    assert found.passed, found.detail


def _two_masks(layer: DoRALinear, x: Tensor) -> Tensor:
    """x W^T and the branch drop elements of their own."""
    g = layer.magnitude / _norm(layer, layer.scale).detach()
    plain = x @ layer.weight.t()
    product = torch.dropout(x, layer.dropout, True) @ layer.weight.t()
    branch = layer.scale * torch.dropout(x, layer.dropout, True) @ layer.lora_a.t() @ layer.lora_b.t()
    return plain + (g - 1) * product + g * branch + (0.0 if layer.bias is None else layer.bias)


def _undropped_product(layer: DoRALinear, x: Tensor) -> Tensor:
    g = layer.magnitude / _norm(layer, layer.scale).detach()
    branch = layer.scale * torch.dropout(x, layer.dropout, True) @ layer.lora_a.t() @ layer.lora_b.t()
    return g * (x @ layer.weight.t() + branch) + (0.0 if layer.bias is None else layer.bias)


@pytest.mark.parametrize("forward", [_two_masks, _undropped_product])
def test_a_product_that_drops_otherwise_is_found(models: dict[str, str], plant: Any, forward: Any) -> None:
    impl = plant("dora", _planted(forward))
    assert not check(case_of(models, "gpt2", "dora", "linear", impl=impl, dropout=0.2), "cpu").passed
