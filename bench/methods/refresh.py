"""What is due after an optimizer step, and LoRA's B drawn at random for timing."""

from collections.abc import Iterator
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from kernels import LoRALinear, PaCALinear


@torch.no_grad()
def draw_lora_b(model: nn.Module, share: float = 0.5) -> None:
    """Draws every B so that the branch s * x A^T B^T is about `share` of x W^T in root mean square.

    Other methods have no B, and nothing happens. With B = 0, dA is 0, and half of any check or timing says nothing.
    For x with independent entries the two are as s ||B A|| to ||W|| (Frobenius), and E ||B A||^2 = std^2 N ||A||^2. At
    a half, outputs grow by sqrt(1.25) only and the norm in front of each block takes that back, so 48 blocks in fp16
    stay finite. Nothing is read back from a GPU.
    """
    drawn = False
    for weight, a, b, scale in _branches(model):  # one after the other: a 4-bit weight's values are made for it alone
        wide = torch.promote_types(weight.dtype, torch.float32)
        norm_w, norm_a = (torch.linalg.vector_norm(t, dtype=wide) for t in (weight, a))
        std = share * norm_w / (scale * b.shape[0] ** 0.5 * norm_a)
        b.copy_(torch.randn_like(b, dtype=wide) * std)
        drawn = True
    for layer in refreshed_layers(model) if drawn else ():  # what an impl made of B = 0
        layer.refresh()


def _branches(model: nn.Module) -> Iterator[tuple[Tensor, Tensor, Tensor, float]]:
    """(stored weight, A, B, scale) of every LoRA layer, this project's or PEFT's, in the order of the modules."""
    for module in model.modules():
        layer: Any = module
        if isinstance(module, LoRALinear):
            yield as_numbers(module.stored_weight), module.lora_a, module.lora_b, module.scale
        elif hasattr(module, "lora_A") and "default" in layer.lora_A:
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            yield as_numbers(layer.get_base_layer().weight), a, b, layer.scaling["default"]


def as_numbers(weight: Tensor) -> Tensor:
    """A weight as its values, where bitsandbytes or torchao store it in 4 bits; any other as it is."""
    packed: Any = weight
    if getattr(packed, "quant_state", None) is not None:
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(packed.data, packed.quant_state)
    return packed.get_original_weight() if hasattr(packed, "get_original_weight") else weight


class Refreshed(Protocol):
    """A layer that keeps something made of its trained tensors."""

    def refresh(self) -> None: ...


def refreshed_layers(model: nn.Module) -> list[Refreshed]:
    """The layers that are due for a refresh after every optimizer step: PaCA's, whose live columns lie in the weight,
    and those that say so, as a merged LoRA does. PaCA layers that need none say refresh_due = False.
    """
    due = (m for m in model.modules() if getattr(m, "refresh_due", isinstance(m, PaCALinear)))
    return [cast(Refreshed, m) for m in due]
