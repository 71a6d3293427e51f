"""The reference functions, in plain torch: tests and the correctness check compare the kernels against these."""

from .lora.reference import lora_linear
from .paca.reference import paca_linear

__all__ = ["lora_linear", "paca_linear"]
