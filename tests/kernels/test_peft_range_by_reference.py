"""PEFT's fp32 adapters over 16 bits where the reference computes."""

from tests.kernels.peft_range_cases import *  # noqa: F403
