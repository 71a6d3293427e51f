"""accelerate() on a PEFT LoRA model of every linear layer: the same outputs and gradients, and back again."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from ..peft import accelerate, restore
from .build import Specimen, sentence
from .passes import gradients, same_gradients, same_outputs
from .row import Accelerate

CONFIG: dict[str, Any] = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.0, "target_modules": "all-linear"}
_MAMBA = ["out_proj", "conv1d"]  # PEFT refuses a Mamba model with these, whose weights its forward reads itself

# By mode, evaluation and training: outputs, and gradients by parameter.
Passes = list[tuple[list[Tensor], dict[str, Tensor]]]


def try_accelerate(specimen: Specimen) -> Accelerate:
    """What accelerate() does to the architecture. Float64 decides where float32 differs: a tiny difference before a
    router's choice, say, makes another choice, but an error of ours stays one in float64."""
    found = _trial(specimen, torch.float32)
    if found.equal is not False:
        return found
    exact = _trial(specimen, torch.float64)
    return exact if exact.equal else found


def _trial(specimen: Specimen, dtype: torch.dtype) -> Accelerate:
    inputs = specimen.inputs_in(dtype)
    try:
        model = _adapted(specimen, dtype)
    except Exception as error:
        try:
            model = _adapted(specimen, dtype, exclude_modules=_MAMBA)
        except Exception:
            return Accelerate(reason=f"PEFT takes no all-linear here: {sentence(error)}")
    try:
        expected = _passes(model, inputs)
    except Exception as error:
        return Accelerate(reason=f"PEFT's own forward fails: {sentence(error)}")
    try:
        report = accelerate(model)
        found = _passes(model, inputs)
        restore(model)
        again = _passes(model, inputs)
    except Exception as error:
        return Accelerate(equal=False, reason=sentence(error))
    reason = _difference(found, expected, "") or _difference(again, expected, "after restore ")
    return Accelerate(
        fused=len(report.accelerated),
        adapted=len(report.accelerated) + len(report.left),
        reached=sum(bool(grad.any()) for name, grad in expected[1][1].items() if ".lora_B." in name),
        equal=not reason,
        left=dict(Counter(report.left.values())),
        reason=reason,
    )


def _adapted(specimen: Specimen, dtype: torch.dtype, **more: Any) -> nn.Module:
    model: Any = get_peft_model(specimen.build(dtype), LoraConfig(**CONFIG, **more))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:  # zeros as PEFT has them: a branch that is left out would not be seen
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def _passes(model: nn.Module, inputs: Mapping[str, Any]) -> Passes:
    found = [gradients(model.train(training), inputs) for training in (False, True)]
    model.eval()
    return found


def _difference(found: Passes, expected: Passes, when: str) -> str:
    for mode, (values, grads), (known, known_grads) in zip(("evaluation", "training"), found, expected, strict=True):
        if not same_outputs(values, known):
            return f"{when}the output differs from PEFT's in {mode}"
        if (name := same_gradients(grads, known_grads)) is not None:
            return f"{when}the gradient of {name} differs from PEFT's in {mode}"
    return ""
