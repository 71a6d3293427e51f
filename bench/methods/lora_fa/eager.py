"""lora-fa, impl eager: LoRA's textbook. Of x A^T with A frozen autograd keeps no x, and of S B^T it keeps S."""

from torch import nn

from bench.case import Case
from bench.methods.adapt import Trained, adapt_lora
from bench.methods.lora.eager import EagerLoRALinear


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains B (N, r) of every target layer."""
    return adapt_lora(model, case, EagerLoRALinear, frozen=("lora_a",))
