"""FusedLinear: PEFT's LoRA layer over nn.Linear or Conv1D, with its forward computed by lora_linear where it can be.

A subclass without state of its own: a layer becomes one by its __class__, so parameters, names, hooks, pickles and
everything PEFT does to the layer stay what they were. Which adapter is active, merged or switched off, and which
modules carry hooks, may change between any two calls, so every call asks.
"""

from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ..lora import lora_linear
from ..modules.plain_linear import watched
from ..runtime.checks import FLOATING

_LINEAR, _CONV1D = nn.Linear.forward, Conv1D.forward

# weight (N, K), bias, A (r, K), B (N, r), scale, dropout_p
Parts = tuple[Tensor, Tensor | None, Tensor, Tensor, float, float]


class FusedLinear(Linear):
    """peft.tuners.lora.layer.Linear whose plain LoRA calls are one lora_linear.

    The output has the dtype that PEFT gives it. fp32 adapters over a 16-bit base are rounded to x's dtype inside,
    where PEFT computes the branch in fp32; their gradients are fp32. Calls that cannot be fused go to PEFT's forward.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args or kwargs:  # adapter_names, offsets of activated LoRA
            return super().forward(x, *args, **kwargs)
        parts = parts_of(self)
        if isinstance(parts, str) or not _fits(x, parts):
            return super().forward(x)
        weight, bias, a, b, scale, p = parts
        return lora_linear(x, weight, a, b, scale=scale, bias=bias, dropout_p=p)

    def _get_name(self) -> str:
        return "Linear"  # a printed model reads as PEFT's


def parts_of(layer: Linear) -> Parts | str:
    """What lora_linear needs of the layer as it is now, or the reason why it cannot stand in for PEFT's forward."""
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
    if lora_b._parameters["bias"] is not None:
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
    if forward is not _LINEAR and forward is not _CONV1D:
        return f"its base is a {type(base).__name__}, with a forward of its own"
    weight, bias = base._parameters.get("weight"), base._parameters.get("bias")
    a: Any = lora_a._parameters.get("weight")
    b: Any = lora_b._parameters.get("weight")
    kinds = {type(weight), type(a), type(b), nn.Parameter if bias is None else type(bias)}
    if len(kinds) != 1 or nn.Parameter not in kinds:
        found = ", ".join(sorted(kind.__name__ for kind in kinds - {nn.Parameter}))
        return f"a weight is a {found}, not a plain parameter (quantised, sharded or computed)"
    if forward is _CONV1D:
        weight = weight.t()
    return weight, bias, a, b, scale, p


def _variant(layer: Linear, name: str) -> str:
    variant = type(layer.lora_variant[name]).__name__.removesuffix("Variant").removesuffix("Linear")
    return "DoRA" if variant == "Dora" else f"LoRA variant {variant}"


def _fits(x: Tensor, parts: Parts) -> bool:
    """Whether lora_linear takes x with these parts, and gives what PEFT gives."""
    if type(x) is not Tensor and type(x) is not nn.Parameter:
        return False
    if x.is_meta or torch._C._functorch.peek_interpreter_stack() is not None:  # no storage: meta, vmap, jvp ...
        return False
    if dtype_reason(x.dtype, parts) is None:
        return True
    # Autocast casts all of them but float64.
    dtypes = {x.dtype, *(part.dtype for part in parts[:4] if part is not None)}
    return torch.is_autocast_enabled(x.device.type) and dtypes <= _AUTOCAST and parts[2].dtype == parts[3].dtype


_AUTOCAST = {torch.bfloat16, torch.float16, torch.float32}


def dtype_reason(dtype: torch.dtype, parts: Parts) -> str | None:
    """Why lora_linear refuses these dtypes outside autocast for x of `dtype`; None where it does not."""
    weight, bias, a, b = parts[:4]
    adapter = a.dtype
    if weight.dtype != dtype or dtype not in FLOATING or (bias is not None and bias.dtype != dtype):
        return f"base weight in {weight.dtype}"
    if b.dtype != adapter or (adapter != dtype and adapter != torch.float32):
        return f"adapter in {adapter} over a base in {dtype}"
    return None
