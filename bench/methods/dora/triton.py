"""dora, impl triton: the library's own DoRALinear."""

from torch import nn

from bench.case import Case
from bench.methods.adapt import Trained, adapt_lora
from kernels import DoRALinear


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains A (r, K), B (N, r) and the magnitude (N,) of every target layer; siblings (q, k, v; gate, up) run alone.

    A weight whose layer is fastest as one cuBLAS GEMM, as far as is known, gets room for B beside it.
    """
    trained = adapt_lora(model, case, DoRALinear)
    for layer in model.modules():
        if isinstance(layer, DoRALinear):
            layer.prepare(case.tokens)
    return trained
