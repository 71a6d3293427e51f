"""DoRA: reference, kernels, autograd function, module."""

from .linear import dora_linear
from .module import DoRALinear

__all__ = ["DoRALinear", "dora_linear"]
