"""The reference functions, in plain torch: tests and the correctness check compare the kernels against these."""

from .dora.reference import dora_linear
from .lora.reference import lora_linear
from .paca.reference import paca_linear

__all__ = ["dora_linear", "lora_linear", "paca_linear"]
