"""The range of fp32 adapters' gradients where the kernels compute: in the interpreter."""

from tests.kernels.range_cases import *  # noqa: F403
