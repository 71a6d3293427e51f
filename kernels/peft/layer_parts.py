"""What of a LoRA layer goes into lora_linear, of a DoRA layer into dora_linear, or why it cannot."""

from typing import Any, NamedTuple

import torch
from peft.tuners.lora.dora import DoraLinearLayer
from peft.tuners.lora.layer import Linear
from peft.tuners.lora.variants import DoraLinearVariant
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..modules.plain_linear import is_plain, watched
from ..runtime.checks import FLOATING

_LINEAR, _CONV1D, _PEFTS = nn.Linear.forward, Conv1D.forward, Linear.forward

# weight (N, K), bias, A (r, K), B (N, r), scale, dropout_p
Parts = tuple[Tensor, Tensor | None, Tensor, Tensor, float, float]


class DoraParts(NamedTuple):
    """Those of its LoRA, whose dropout_p is 0, and the magnitude (N,)."""

    lora: Parts
    magnitude: Tensor


def parts_of(layer: Linear) -> Parts | DoraParts | str:
    """What lora_linear or dora_linear needs of the layer as it is now, or the reason why neither can stand in for
    PEFT's forward.

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
    variant = layer.lora_variant.get(name)
    if variant is not None and type(variant) is not DoraLinearVariant:
        return f"LoRA variant {type(variant).__name__.removesuffix('Variant').removesuffix('Linear')}"
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
    parts = (weight, bias, a, b, scale, p)
    return parts if variant is None else _with_magnitude(parts, modules, name, forward is _CONV1D)


def _with_magnitude(parts: Parts, modules: dict[str, Any], name: str, conv1d: bool) -> DoraParts | str:
    if parts[5] > 0.0:
        return "for now: DoRA with dropout, which takes a second product with the weight; in eval mode it is served"
    dora = modules["lora_magnitude_vector"]._modules[name]
    if type(dora) is not DoraLinearLayer:
        return f"its magnitude is that of a {type(dora).__name__}, not DoraLinearLayer"
    if watched(dora):
        return "hooks on its DoRA layer, which a fused call would pass by"
    if bool(dora.fan_in_fan_out) != conv1d:
        return f"fan_in_fan_out is {dora.fan_in_fan_out}, which does not go with its base: the norms are of columns"
    magnitude = dora._parameters.get("weight")
    if type(magnitude) is not nn.Parameter:
        return f"its magnitude is a {type(magnitude).__name__}, not a plain parameter"
    return DoraParts(parts, magnitude)


def _linear_in_other_words(base: nn.Module) -> bool:
    """Whether it is a subclass of nn.Linear whose own forward is known to compute the same."""
    return isinstance(base, nn.Linear) and type(base) is not nn.Linear and is_plain(base)


def dtype_reason(parts: Parts | DoraParts) -> str | None:
    """Why these dtypes are refused outside autocast for x of the base weight's dtype; None where they are not."""
    lora = parts.lora if isinstance(parts, DoraParts) else parts
    weight, bias, a, b = lora[:4]
    dtype, adapter = weight.dtype, a.dtype
    if dtype not in FLOATING or (bias is not None and bias.dtype != dtype):
        return f"base weight in {weight.dtype}"
    if b.dtype != adapter or (adapter != dtype and adapter != torch.float32):
        return f"adapter in {adapter} over a base in {dtype}"
    if isinstance(parts, DoraParts) and parts.magnitude.dtype not in (dtype, torch.float32):
        return f"magnitude in {parts.magnitude.dtype} over a base in {dtype}"
    return None
