"""paca, impl triton: the library's own PaCALinear, whose gather and skinny gradient run in kernels."""

from torch import nn

from bench.case import Case
from bench.methods.adapt import Trained, adapt_paca
from kernels import PaCALinear


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains `columns` (N, r) of every target layer."""
    return adapt_paca(model, case, PaCALinear)
