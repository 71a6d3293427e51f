"""Cases of small models, and implementations that a test registers for as long as it runs."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.case import Case
from bench.correctness.bounds import CheckResult
from bench.methods.adapt import adapt
from bench.methods.paca.eager import EagerPaCALinear
from kernels import LoRALinear, PaCALinear
from kernels.paca.target_layers import seed_of
from tests.models.tiny import GPT2, LLAMA, make_case

FIELDS = {"gpt2": GPT2, "llama": LLAMA}
LAYERS = {"gpt2": "mlp.c_proj", "llama": "mlp.down_proj"}  # a Conv1D with bias, an nn.Linear without

Forward = Callable[[Any, Tensor], Tensor]


def case_of(models: dict[str, str], family: str, method: str, level: str, **axes: Any) -> Case:
    """A case on a small model; at level linear, on the layer of LAYERS."""
    axes = {"layer": LAYERS[family] if level == "linear" else None, "seq": 16, **axes}
    return make_case(models[family], method, level, **axes)


def lora_impl(forward: Forward) -> Callable[..., Any]:
    """An impl of lora whose layers compute `forward(layer, x)`."""
    kind = type("Planted", (LoRALinear,), {"forward": forward})

    def apply(model: nn.Module, case: Case) -> Any:
        assert case.rank is not None and case.alpha is not None
        make = [case.rank, case.alpha, case.dropout or 0.0, torch.float32 if case.adapter_dtype == "fp32" else None]
        return adapt(model, case, lambda _, layer: kind(layer, *make))

    return apply


def lora_formula(
    layer: LoRALinear,
    x: Tensor,
    scale: float | None = None,
    branch_x: Tensor | None = None,
    a: Tensor | None = None,
    b: Tensor | None = None,
) -> Tensor:
    """The right formula, with parts to replace."""
    s = F.linear(x if branch_x is None else branch_x, layer.lora_a if a is None else a)
    return layer.base(x) + (layer.scale if scale is None else scale) * F.linear(s, layer.lora_b if b is None else b)


def paca_impl(make: Callable[[str, nn.Module, Case], nn.Module]) -> Callable[..., Any]:
    """An impl of paca that puts make(name, layer, case) in place of a layer."""
    return lambda model, case: adapt(model, case, lambda name, layer: make(name, layer, case))


def paca_layer(name: str, layer: nn.Module, case: Case, kind: type[PaCALinear] = EagerPaCALinear) -> PaCALinear:
    """A layer as impl eager makes it, of another class."""
    assert case.rank is not None and case.alpha is not None
    return kind(layer, case.rank, case.alpha, seed=seed_of(name))


def paca_of(kind: type[PaCALinear]) -> Callable[[str, nn.Module, Case], nn.Module]:
    """What paca_impl takes: layers of that class."""
    return lambda name, layer, case: paca_layer(name, layer, case, kind)


def named(result: CheckResult, tensors: set[str], where: str) -> None:
    """The check failed, at one of these tensors, and says where."""
    assert not result.passed
    assert result.tensor.rpartition(".")[2] in tensors, result.detail
    assert not result.error <= result.bound
    assert result.detail.startswith(result.tensor) and where in result.detail and "bound" in result.detail
