"""PaCA: reference, kernels, autograd function, module; and whole models under it."""

from .checkpoint import load_paca, save_paca
from .linear import paca_linear
from .model import PacaConfig, merge_paca, paca, remove_paca
from .module import PaCALinear, parameter_groups, refresh_after_step

__all__ = [
    "PaCALinear",
    "PacaConfig",
    "load_paca",
    "merge_paca",
    "paca",
    "paca_linear",
    "parameter_groups",
    "refresh_after_step",
    "remove_paca",
    "save_paca",
]
