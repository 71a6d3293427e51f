"""Gradients of gradients where the kernels compute: in the interpreter."""

from tests.kernels.derivative_cases import *  # noqa: F403
