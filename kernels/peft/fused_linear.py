"""PEFT's LoRA layer over nn.Linear or Conv1D, computed by lora_linear or dora_linear where it can be."""

from typing import Any

import torch
from peft.tuners.lora import layer as peft_layer
from torch import Tensor
from torch.nn.modules.module import (
    _global_backward_hooks,
    _global_backward_pre_hooks,
    _global_forward_hooks,
    _global_forward_pre_hooks,
)

from ..dora import dora_linear
from ..lora import lora_linear
from .layer_parts import DoraParts, parts_of
from .servable_call import dtypes_fit, refused, unwatched
from .stand_in import StandIn


def _hooks_on_all_modules() -> bool:
    """Whether a hook wants to hear every module: nn.Module asks the same before it calls a forward."""
    return bool(
        _global_forward_hooks or _global_forward_pre_hooks or _global_backward_hooks or _global_backward_pre_hooks
    )


class Linear(peft_layer.Linear, StandIn):
    """peft.tuners.lora.layer.Linear whose plain LoRA calls are one lora_linear, or one of a group of siblings, and
    whose DoRA calls are one dora_linear.

    The output has the dtype that PEFT gives it. fp32 adapters over a 16-bit base are rounded to x's dtype inside,
    where PEFT computes the branch in fp32; their gradients are fp32. Calls that cannot be fused go to PEFT's forward,
    and with them those that hooks on all modules want to hear.
    """

    stands_for = peft_layer.Linear
    siblings: Any = None  # a PeftSiblings, where its parent has other layers like it

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        # Another library's wrapper may keep this method bound when restore has made self PEFT's own again, hence
        # isinstance, and below no super(). args and kwargs are adapter_names and offsets of activated LoRA.
        if isinstance(self, Linear) and not (args or kwargs or _hooks_on_all_modules()) and unwatched(x):
            parts = parts_of(self)
            if not isinstance(parts, str) and dtypes_fit(self, x, parts):
                try:
                    if isinstance(parts, DoraParts):
                        weight, bias, a, b, scale, _ = parts.lora
                        return dora_linear(x, weight, a, b, parts.magnitude, scale=scale, bias=bias)
                    weight, bias, a, b, scale, p = parts
                    if self.siblings is not None and not torch.compiler.is_compiling():
                        y = self.siblings.output(self, x, parts)
                        if y is not None:
                            return y
                    return lora_linear(x, weight, a, b, scale=scale, bias=bias, dropout_p=p)
                except (RuntimeError, TypeError, ValueError):
                    if not refused(x, parts):
                        raise
        return peft_layer.Linear.forward(self, x, *args, **kwargs)
