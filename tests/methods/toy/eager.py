"""toy, impl eager: LoRA's textbook with A drawn from the layer's name, and frozen."""

import torch
from torch import nn

from bench.case import Case
from bench.methods.adapt import Trained, adapt, adapter_dtype
from bench.methods.lora.eager import EagerLoRALinear


def draw_a(name: str, rank: int, inputs: int) -> torch.Tensor:
    """(rank, inputs) in fp32: part of the case, the same for every impl."""
    generator = torch.Generator().manual_seed(sum(name.encode()))
    return torch.randn(rank, inputs, generator=generator) / inputs**0.5


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains B (N, r) of every target layer."""
    assert case.rank is not None and case.alpha is not None
    rank, alpha = case.rank, case.alpha

    def wrap(name: str, layer: nn.Module) -> nn.Module:
        adapted = EagerLoRALinear(layer, rank, alpha, 0.0, adapter_dtype(case))
        with torch.no_grad():
            adapted.lora_a.copy_(draw_a(name, rank, adapted.in_features)).requires_grad_(False)
        return adapted

    return adapt(model, case, wrap)
