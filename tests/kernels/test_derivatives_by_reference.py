"""Gradients of gradients where the reference computes: without the interpreter, and on any device but a GPU."""

from tests.kernels.derivative_cases import *  # noqa: F403
