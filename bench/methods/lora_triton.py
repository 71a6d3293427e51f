"""lora, impl triton: the library's own LoRALinear, whose products and branch run in fused kernels."""

from torch import nn

from bench.case import Case
from bench.methods.places import Trained, adapt, adapter_dtype
from kernels import LoRALinear


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains A (r, K) and B (N, r) of every target layer."""
    assert case.rank is not None and case.alpha is not None
    rank, alpha, dropout, dtype = case.rank, case.alpha, case.dropout or 0.0, adapter_dtype(case)
    return adapt(model, case, lambda _, layer: LoRALinear(layer, rank, alpha, dropout, dtype))
