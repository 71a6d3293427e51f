"""Whether a call can be fused, by what surrounds it and by its x: what the kernels would pass by belongs to PEFT."""

from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _len_torch_dispatch_stack, _len_torch_function_stack
from torch.overrides import _get_current_function_mode_stack
from torch.utils._device import DeviceContext
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

from ..runtime.checks import check_dora, check_lora
from ..runtime.launch import transformed
from .layer_parts import DoraParts, Parts

_AUTOCAST = {torch.bfloat16, torch.float16, torch.float32}


def unwatched(x: Tensor) -> bool:
    """Whether x is a plain tensor, and nothing around the call traces, counts or transforms torch's operations."""
    if type(x) is not Tensor and type(x) is not nn.Parameter:  # fake tensors, proxies of torch.fx, other subclasses
        return False
    if torch.compiler.is_compiling():
        return not torch.compiler._is_exporting_flag  # an exported program must run where this package is not
    return (
        not transformed()
        # Counters of operations, selective checkpointing, make_fx.
        and (_len_torch_dispatch_stack() == 0 or not _dispatch_mode_watches())
        and (_len_torch_function_stack() == 0 or not _function_mode_watches())
        # Asked last, since a mode that watches would hear it: PEFT's layers have their own answers to these kinds.
        and not (x.is_meta or x.layout is not torch.strided or x.is_nested)
    )


def _dispatch_mode_watches() -> bool:
    """Whether a dispatch mode wants PEFT's own operations. One that looks at what really runs, kernels among it, says
    so by an attribute `sees_fused_layers`."""
    return not all(getattr(mode, "sees_fused_layers", False) for mode in _get_current_dispatch_mode_stack())


def _function_mode_watches() -> bool:
    """Whether a mode listens to torch's functions, other than that of torch.set_default_device."""
    return any(type(mode) is not DeviceContext for mode in _get_current_function_mode_stack())


def dtypes_fit(layer: Any, x: Tensor, parts: Parts | DoraParts) -> bool:
    """Whether lora_linear or dora_linear takes x with these dtypes, and gives what PEFT gives. Shapes are left to
    refused()."""
    if isinstance(parts, DoraParts):
        if x.dim() == 1:
            return False  # PEFT's y has a dimension more
        return parts.magnitude.dtype in (x.dtype, torch.float32) and dtypes_fit(layer, x, parts.lora)
    weight, _, a, b, _, _ = parts
    dtype, adapter = x.dtype, a.dtype
    if adapter is not dtype and not layer.cast_input_dtype_enabled:
        return False  # PEFT leaves the dtypes to torch then
    if weight.dtype is dtype and b.dtype is adapter and (adapter is dtype or adapter is torch.float32):
        return True
    # Autocast casts all of them but float64.
    dtypes = {dtype, *(part.dtype for part in parts[:4] if part is not None)}
    return torch.is_autocast_enabled(x.device.type) and dtypes <= _AUTOCAST and b.dtype is adapter


def refused(x: Tensor, parts: Parts | DoraParts) -> bool:
    """Whether lora_linear or dora_linear raised because it takes no such x: a width or device that torch has its own
    words for, or a kind (sparse, nested, meta) that torch may well serve. Asked after an error, so that other calls do
    not pay.
    """
    lora, others = (parts.lora, (parts.magnitude,)) if isinstance(parts, DoraParts) else (parts, ())
    weight, bias, a, b, scale, p = lora
    tensors = (x, weight, a, b, *others) if bias is None else (x, weight, a, b, bias, *others)
    if any(tensor.layout is not torch.strided or tensor.is_nested or tensor.is_meta for tensor in tensors):
        return True
    autocast = torch.is_autocast_enabled(x.device.type)
    try:
        if others:
            check_dora(x, weight, a, b, *others, bias, scale, autocast=autocast)
        else:
            check_lora(x, weight, a, b, bias, scale, p, None, autocast)
    except (TypeError, ValueError):
        return True
    return False
