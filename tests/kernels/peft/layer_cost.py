"""Host cost of one forward of a LoRA layer, PEFT's and the accelerated one, with the fused one's launches faked.

    PYTHONPATH=. python tests/kernels/peft/layer_cost.py

As tests/kernels/host_cost.py measures it: everything but the driver's own launch, on tensors so small that arithmetic
does not count. PEFT's products do run, at that size.
"""

from __future__ import annotations

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from kernels import lora_linear
from kernels.peft import accelerate
from tests.kernels.host_cost import faked_launches, microseconds


def layer(
    base: nn.Module, accelerated: bool, dropout: float, adapter_fp32: bool, dtype: torch.dtype = torch.bfloat16
) -> nn.Module:
    """A LoRA layer of rank 16 over a base in `dtype`."""
    model = nn.ModuleDict({"base": base.to(dtype)})
    config = LoraConfig(target_modules=["base"], r=16, lora_dropout=dropout, init_lora_weights=False)
    tuned = get_peft_model(model, config, autocast_adapter_dtype=adapter_fp32)
    if accelerated:
        accelerate(tuned)
    return tuned.base_model.model["base"]


def under_autocast(tuned: nn.Module, x: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return tuned(x)


def measure() -> dict[tuple[str, bool], float]:
    """us per forward call, by case and whether accelerated."""
    torch.set_num_threads(1)
    x = torch.randn(1, 16, dtype=torch.bfloat16, requires_grad=True)
    x_fp32 = x.detach().float().requires_grad_()
    calls = {}
    for kind, base in (("Linear", lambda: nn.Linear(16, 16)), ("Conv1D", lambda: Conv1D(16, 16))):
        for words, dropout, fp32 in (("", 0.0, False), (", fp32 adapter", 0.0, True), (", dropout", 0.1, False)):
            for accelerated in (False, True):
                tuned = layer(base(), accelerated, dropout, fp32)
                calls[kind + words, accelerated] = lambda tuned=tuned: tuned(x)
        for accelerated in (False, True):
            tuned = layer(base(), accelerated, 0.0, True, torch.float32)
            calls[f"{kind}, autocast", accelerated] = lambda tuned=tuned: under_autocast(tuned, x_fp32)
    plain = layer(nn.Linear(16, 16), True, 0.0, False)
    weight, bias = plain.base_layer.weight, plain.base_layer.bias
    a, b = plain.lora_A["default"].weight, plain.lora_B["default"].weight
    calls["lora_linear itself", True] = lambda: lora_linear(x, weight, a, b, scale=0.5, bias=bias)
    with faked_launches():
        return microseconds(calls)


if __name__ == "__main__":
    cost = measure()
    for name, fused in cost:
        if not fused:
            theirs, ours = cost[name, False], cost[name, True]
            print(f"{name:22} PEFT {theirs:6.2f} us, accelerated {ours:6.2f} us, ratio {ours / theirs:.2f}")
    print(f"lora_linear itself {cost['lora_linear itself', True]:.2f} us")
