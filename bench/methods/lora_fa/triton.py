"""lora-fa, impl triton: the library's LoRALinear with A frozen. Its kernels compute no dA then, and do not keep x."""

from torch import nn

from bench.case import Case
from bench.methods.adapt import Trained
from bench.methods.lora.triton import fused


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains B (N, r) of every target layer; siblings (q, k, v; gate, up) run as one group."""
    return fused(model, case, frozen=("lora_a",))
