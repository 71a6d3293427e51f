"""PaCA: reference, kernels, autograd function, module."""

from .layer import PaCALinear, parameter_groups, refresh_after_step
from .linear import paca_linear

__all__ = ["PaCALinear", "paca_linear", "parameter_groups", "refresh_after_step"]
