"""What of a LoRA layer goes into lora_linear, or why it cannot."""

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..modules.plain_linear import is_plain, watched
from ..runtime.checks import FLOATING

_LINEAR, _CONV1D, _PEFTS = nn.Linear.forward, Conv1D.forward, Linear.forward

# weight (N, K), bias, A (r, K), B (N, r), scale, dropout_p
Parts = tuple[Tensor, Tensor | None, Tensor, Tensor, float, float]


def parts_of(layer: Linear) -> Parts | str:
    """What lora_linear needs of the layer as it is now, or the reason why it cannot stand in for PEFT's forward.

    Which adapter is active, merged or switched off, and which modules carry hooks, may change between any two calls,
    so every call asks.
    """
    if Linear.forward is not _PEFTS:
        return "the forward of PEFT's class was replaced by another library"
    if layer._disable_adapters:
        return "for now: the adapters are disabled"
    if layer.merged_adapters:
        return "for now: the adapter is merged"
    # Submodules are taken from _modules: nn.Module's own look-up costs half a microsecond each.
    modules: dict[str, Any] = layer._modules
    branches: dict[str, Any] = modules["lora_A"]._modules
    active = layer._active_adapter
    names = [active] if isinstance(active, str) else active
    if len(names) != 1 or names[0] not in branches:
        names = [name for name in names if name in branches]
        if len(names) != 1:
            return f"for now: several adapters are active ({', '.join(names)})" if names else "for now: none is active"
    name = names[0]
    if name in layer.lora_variant:
        return _variant(layer, name)
    base, lora_a, lora_b = modules["base_layer"], branches[name], modules["lora_B"]._modules[name]
    dropout = modules["lora_dropout"]._modules[name]
    if type(lora_a) is not nn.Linear or type(lora_b) is not nn.Linear:
        return f"A is a {type(lora_a).__name__} and B a {type(lora_b).__name__}, not nn.Linear"
    if lora_b._parameters.get("bias", lora_b) is not None or lora_a._parameters.get("bias", lora_a) is not None:
        return "lora_bias"
    p = 0.0
    if type(dropout) is nn.Dropout:
        if dropout.training:
            p = dropout.p
            if p >= 1.0:
                return "dropout of 1"
    elif type(dropout) is not nn.Identity:
        return f"dropout by {type(dropout).__name__}, not nn.Dropout"
    if watched(base) or watched(lora_a) or watched(lora_b) or watched(dropout):
        return "hooks on its base layer, A, B or dropout, which a fused call would pass by"
    scale = layer.scaling[name]
    if not isinstance(scale, (float, int)):  # the union would cost four times as much
        return f"its scaling is a {type(scale).__name__}, not a number"
    forward = type(base).forward
    if forward is not _LINEAR and forward is not _CONV1D and not _linear_in_other_words(base):
        return f"its base is a {type(base).__name__}, with a forward of its own"
    parameters = base._parameters
    weight, bias = parameters.get("weight"), parameters.get("bias", base)  # base: the bias is no parameter
    a: Any = lora_a._parameters.get("weight")
    b: Any = lora_b._parameters.get("weight")
    kind = nn.Parameter
    if not (
        type(weight) is kind and type(a) is kind and type(b) is kind and (bias is None or type(bias) is kind)
    ):  # fmt: skip
        kinds = {type(part).__name__ for part in (weight, a, b, bias) if isinstance(part, Tensor)} - {"Parameter"}
        found = f"is a {', '.join(sorted(kinds))}" if kinds else "is computed"
        return f"a weight or bias {found}, not a plain parameter (quantised, sharded or computed)"
    if forward is _CONV1D:
        weight = weight.t()
    return weight, bias, a, b, scale, p


def _linear_in_other_words(base: nn.Module) -> bool:
    """Whether it is a subclass of nn.Linear whose own forward is known to compute the same."""
    return isinstance(base, nn.Linear) and type(base) is not nn.Linear and is_plain(base)


def _variant(layer: Linear, name: str) -> str:
    variant = type(layer.lora_variant[name]).__name__.removesuffix("Variant").removesuffix("Linear")
    return "DoRA" if variant == "Dora" else f"LoRA variant {variant}"


def dtype_reason(dtype: torch.dtype, parts: Parts) -> str | None:
    """Why lora_linear refuses these dtypes outside autocast for x of `dtype`; None where it does not."""
    weight, bias, a, b = parts[:4]
    adapter = a.dtype
    if weight.dtype != dtype or dtype not in FLOATING or (bias is not None and bias.dtype != dtype):
        return f"base weight in {weight.dtype}"
    if b.dtype != adapter or (adapter != dtype and adapter != torch.float32):
        return f"adapter in {adapter} over a base in {dtype}"
    return None
