"""The correctness check of LoRA-FA and BitFit: every fault that is planted is found, with its tensor named."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.case import Case
from bench.correctness.check import check
from bench.methods.adapt import Trained, adapt, adapt_lora
from bench.methods.bitfit.eager import BitFitLinear
from kernels import LoRALinear
from tests.correctness.planted import Forward, case_of, lora_formula, named
from tests.models.tiny import LLAMA, make_case, write_config


def _without_gradient(t: Tensor) -> Tensor:
    return t.detach() + 0 * t


def _drifting(layer: LoRALinear, x: Tensor) -> Tensor:
    """A moves by a little in every call, as one that an optimizer decays."""
    y = lora_formula(layer, x)
    layer.lora_a.data.mul_(0.9)  # unseen by autograd's versions
    return y


def _stale_a(layer: Any, x: Tensor) -> Tensor:
    """S is of the A that the first call found, B of the A that is there."""
    if not hasattr(layer, "first"):
        layer.first = layer.lora_a.clone()
        layer.lora_a.add_(torch.randn_like(layer.lora_a))
    return lora_formula(layer, x, a=layer.first)


LORA_FA: dict[str, tuple[Forward, set[str]]] = {
    "right": (lora_formula, set()),
    "doubled scale": (lambda m, x: lora_formula(m, x, 2 * m.scale), {"output"}),
    "no branch": (lambda m, x: m.base(x) + 0 * lora_formula(m, x), {"output"}),
    "dB zero": (lambda m, x: lora_formula(m, x, b=_without_gradient(m.lora_b)), {"lora_b"}),
    "dX without the branch": (lambda m, x: lora_formula(m, x, branch_x=x.detach()), {"x"}),
    "A drifts": (_drifting, {"output", "lora_a", "x", "lora_b"}),
    "another A": (_stale_a, {"output", "lora_a"}),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fault", LORA_FA)
def test_faults_of_lora_fa(models: dict[str, str], plant: Any, fault: str, precision: str) -> None:
    forward, tensors = LORA_FA[fault]
    kind = type("Planted", (LoRALinear,), {"forward": forward})
    impl = plant("lora-fa", lambda model, case: adapt_lora(model, case, kind, frozen=("lora_a",)))
    found = check(case_of(models, "gpt2", "lora-fa", "linear", impl=impl, precision=precision), "cpu")
    if fault == "right":
        assert found.passed, found.detail
    else:
        named(found, tensors, "")


def test_an_a_that_changes_after_all_gradients_were_seen_is_named(models: dict[str, str], plant: Any) -> None:
    """By the refresh after a step, so that nothing that was compared before tells of it."""

    class Moving(LoRALinear):
        refresh_due = True
        refreshes = 0

        def forward(self, x: Tensor) -> Tensor:
            return lora_formula(self, x, a=self.first if hasattr(self, "first") else None)

        def refresh(self) -> None:
            self.refreshes += 1
            if self.refreshes == 3:  # the first two follow the drawing of B
                self.first = self.lora_a.clone()
                self.lora_a.neg_()

    impl = plant("lora-fa", lambda model, case: adapt_lora(model, case, Moving, frozen=("lora_a",)))
    found = check(case_of(models, "gpt2", "lora-fa", "linear", impl=impl), "cpu")
    named(found, {"lora_a"}, "is frozen, and 512 of its values have changed")


def test_an_a_that_trains_is_named(models: dict[str, str], plant: Any) -> None:
    impl = plant("lora-fa", lambda model, case: adapt_lora(model, case, LoRALinear))
    found = check(case_of(models, "gpt2", "lora-fa", "linear", impl=impl), "cpu")
    named(found, {"lora_a"}, "trains and should not")


def _bitfit(forward: Callable[[Any, Tensor], Tensor]) -> Callable[[nn.Module, Case], Trained]:
    kind = type("Planted", (BitFitLinear,), {"forward": forward})
    return lambda model, case: adapt(model, case, lambda _, layer: kind(layer, None))


class _Sevens(BitFitLinear):
    def __init__(self, base: nn.Module, dtype: torch.dtype | None) -> None:
        super().__init__(base, dtype)
        self.bias.data.fill_(7.0)


@pytest.mark.parametrize(("family", "level"), [("gpt2", "block"), ("gpt2", "linear"), ("llama", "linear")])
def test_a_bias_that_is_not_the_layer_s_own_is_named(
    models: dict[str, str], plant: Any, family: str, level: str
) -> None:
    impl = plant("bitfit", lambda model, case: adapt(model, case, lambda _, layer: _Sevens(layer, None)))
    found = check(case_of(models, family, "bitfit", level, impl=impl), "cpu")
    named(found, {"bias"}, "as built")


def test_zeros_are_not_the_layer_s_own_bias(tmp_path: Path, plant: Any) -> None:
    """Of an nn.Linear that is built with a bias that is drawn."""

    class Zeros(BitFitLinear):
        def __init__(self, base: nn.Module, dtype: torch.dtype | None) -> None:
            super().__init__(base, dtype)
            self.bias.data.zero_()

    path = write_config(tmp_path, {**LLAMA, "attention_bias": True})
    case = make_case(path, "bitfit", "linear", layer="self_attn.q_proj", seq=16)
    assert check(case, "cpu").passed
    impl = plant("bitfit", lambda model, case: adapt(model, case, lambda _, layer: Zeros(layer, None)))
    named(check(replace(case, impl=impl), "cpu"), {"bias"}, "as built")


def _with(layer: BitFitLinear, x: Tensor, bias: Tensor) -> Tensor:
    return torch.nn.functional.linear(x, layer.weight, bias)


def _stale_bias(layer: Any, x: Tensor) -> Tensor:
    if not hasattr(layer, "kept"):
        layer.kept = layer.bias.detach().clone()
    return _with(layer, x, layer.kept + layer.bias - layer.bias.detach())


def _of_one_sequence(layer: BitFitLinear, x: Tensor) -> Tensor:
    """db of the first sequence alone."""
    y = _with(layer, x, layer.bias.detach())
    return y + (layer.bias - layer.bias.detach()) * (torch.arange(x.shape[1]) < x.shape[1] // 2)[:, None]


BITFIT: dict[str, tuple[Callable[[Any, Tensor], Tensor], set[str]]] = {
    "right": (BitFitLinear.forward, set()),
    "no bias": (lambda m, x: _with(m, x, 0 * m.bias), {"output"}),
    "twice the bias": (lambda m, x: _with(m, x, 2 * m.bias), {"output"}),
    "db zero": (lambda m, x: _with(m, x, _without_gradient(m.bias)), {"bias"}),
    "db of half of the tokens": (_of_one_sequence, {"bias"}),
    "stale bias": (_stale_bias, {"output"}),
    "dX zero": (lambda m, x: _with(m, _without_gradient(x), m.bias), {"x"}),
}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("fault", BITFIT)
def test_faults_of_bitfit(models: dict[str, str], plant: Any, fault: str, family: str) -> None:
    """On a Conv1D with a bias, and on an nn.Linear that has none of its own."""
    forward, tensors = BITFIT[fault]
    impl = plant("bitfit", _bitfit(forward))
    found = check(case_of(models, family, "bitfit", "linear", impl=impl, precision="bf16"), "cpu")
    if fault == "right":
        assert found.passed, found.detail
    else:
        named(found, tensors, "after a step" if fault == "stale bias" else "")
