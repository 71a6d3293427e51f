"""LoRA: reference, kernels, autograd function, module."""

from .group import lora_linear_group
from .layer import LoRALinear
from .linear import keep_mask, lora_linear

__all__ = ["LoRALinear", "keep_mask", "lora_linear", "lora_linear_group"]
