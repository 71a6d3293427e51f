"""Operands of any strides, in the interpreter."""

from tests.kernels.stride_cases import *  # noqa: F403
