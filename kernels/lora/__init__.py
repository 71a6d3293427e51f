"""LoRA: reference, kernels, autograd function, module."""

from .layer import LoRALinear
from .linear import lora_linear

__all__ = ["LoRALinear", "lora_linear"]
