"""lora-fa, impls peft, peft-fp32 and peft-triton: PEFT's LoRA with every lora_A frozen.

PEFT itself calls by this name an optimizer, peft.optimizers.create_lorafa_optimizer. It freezes A as is done here, and
beyond that multiplies the gradient of B with (A A^T)^-1 / s^2 before AdamW: part of a step, not of forward or backward.
"""

from torch import nn

from bench.case import Case
from bench.methods.adapt import Trained, trained
from bench.methods.lora import peft


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains B (N, r) of every target layer, which PEFT calls lora_B.default."""
    for name, parameter in peft.apply(model, case):
        parameter.requires_grad_(".lora_A." not in name)
    return trained(model)
