"""paca, impl triton: the library's own PaCALinear, whose gather and skinny gradient run in kernels."""

from torch import nn

from bench.case import Case
from bench.methods.paca_eager import seed_of
from bench.methods.places import Trained, adapt, adapter_dtype
from kernels import PaCALinear


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains `columns` (N, r) of every target layer; which columns they are follows from the layer's name."""
    assert case.rank is not None and case.alpha is not None
    rank, alpha, dtype = case.rank, case.alpha, adapter_dtype(case)
    return adapt(
        model, case, lambda name, layer: PaCALinear(layer, rank, alpha, seed=seed_of(name), adapter_dtype=dtype)
    )
