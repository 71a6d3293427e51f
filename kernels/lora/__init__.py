"""LoRA: reference, kernels, autograd function, module."""

from .group import lora_linear_group
from .linear import keep_mask, lora_linear
from .module import LoRALinear
from .siblings import group_siblings

__all__ = ["LoRALinear", "group_siblings", "keep_mask", "lora_linear", "lora_linear_group"]
