"""The range of fp32 adapters' gradients where the reference computes."""

from tests.kernels.range_cases import *  # noqa: F403
