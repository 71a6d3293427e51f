"""qlora, impls peft and peft-fp32: Hugging Face PEFT over bitsandbytes' Linear4bit, in NF4 with double quantisation.

PEFT as it comes (peft-fp32) makes fp32 adapters beside a quantised weight, and each layer casts its input to fp32 for
them; peft casts them to the model's dtype, as QLoRA's own script did. GPT-2's Conv1D is quantised as the Linear4bit of
its transposed weight.
"""

import bitsandbytes as bnb
import torch
from torch import nn

from bench.case import Case
from bench.methods.adapt import DTYPES, Trained, replace, target_layers
from bench.methods.lora.peft import apply as apply_lora
from bench.methods.qlora.layer import parts_of


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains A (r, K) and B (N, r) of every target layer, which PEFT calls lora_A.default and lora_B.default."""
    computed = DTYPES[case.precision.removeprefix("amp-")]
    stored = next(layer for _, layer in target_layers(model, case)).get_parameter("weight").dtype
    for name, layer in target_layers(model, case):
        replace(model, name, linear_4bit(layer, computed).train(layer.training))
    setattr(model, "is_loaded_in_4bit", True)  # noqa: B010  # by which PEFT knows
    found = apply_lora(model, case)
    if case.impl == "peft":  # PEFT cannot tell the dtype of the adapters from packed codes
        for _, parameter in found:
            parameter.data = parameter.data.to(stored)
    return found


def linear_4bit(layer: nn.Module, computed: torch.dtype) -> bnb.nn.Linear4bit:
    """nn.Linear or Conv1D quantised on the device that it is on. computed: the dtype in which it multiplies."""
    weight, bias = parts_of(layer)
    n, k = weight.shape
    found = bnb.nn.Linear4bit(k, n, bias=False, compute_dtype=computed, quant_type="nf4", device="meta")
    packed = bnb.nn.Params4bit(weight, requires_grad=False, quant_type="nf4", module=found)
    found.weight = packed.to(weight.device)  # type: ignore[misc]  # which quantises
    found.register_parameter("bias", bias)
    return found
