"""lora and dora, impls peft, peft-fp32 and peft-triton: Hugging Face PEFT itself.

PEFT as it comes (peft-fp32) promotes the adapters of a 16-bit model to fp32, and each layer then casts its input to
fp32 for them; peft says autocast_adapter_dtype=False; peft-triton is PEFT as it comes after kernels.peft.accelerate.
"""

import peft
from torch import nn

from bench.case import Case
from bench.methods.adapt import Trained, target_layers, trained
from kernels.peft import accelerate


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains A (r, K) and B (N, r) of every target layer, which PEFT calls lora_A.default and lora_B.default; of
    dora also lora_magnitude_vector.default.weight (N,)."""
    assert case.rank is not None and case.alpha is not None
    layers = target_layers(model, case)
    config = peft.LoraConfig(
        r=case.rank,
        lora_alpha=case.alpha,  # type: ignore[arg-type]  # PEFT takes any number
        use_rslora=case.scaling == "rslora",
        use_dora=case.method == "dora",
        lora_dropout=case.dropout or 0.0,
        target_modules=[name for name, _ in layers],
        fan_in_fan_out=any(type(layer).__name__ == "Conv1D" for _, layer in layers),
        bias="none",
    )
    model.requires_grad_(False)
    # Adapters go into `model` itself; the PeftModel around it adds nothing to its layers.
    peft.get_peft_model(model, config, autocast_adapter_dtype=case.impl != "peft")
    if case.impl == "peft-triton":
        accelerate(model)
    return trained(model)
