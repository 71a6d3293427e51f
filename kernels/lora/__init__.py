"""LoRA: reference, kernels, autograd function, module."""

from .group import lora_linear_group
from .linear import keep_mask, lora_linear
from .module import LoRALinear

__all__ = ["LoRALinear", "keep_mask", "lora_linear", "lora_linear_group"]
