"""accelerate and restore: a PEFT model's LoRA layers become fused ones, and again what they were."""

import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from torch import nn

from .report import Report

_QUANTISED = ("bnb", "gptq", "awq", "aqlm", "eetq", "hqq", "inc", "torchao")


def accelerate(model: nn.Module) -> Report:
    """Swaps the forward of every LoRA and DoRA layer of a PEFT model that lora_linear or dora_linear can compute, and
    reports on all of them.

    Served are peft's lora.Linear over nn.Linear, transformers' Conv1D and FalconLinear with one adapter active, plain
    LoRA or DoRA; DoRA without dropout, or in eval mode. Parameters, names, state_dict and the model's use through PEFT
    do not change; adapters and layers that PEFT adds later to a model of get_peft_model are covered too (after
    inject_adapter_in_model call it again). Calling it twice does no harm. A deepcopy is accelerated as well; a pickle
    of the model (torch.save, a spawned process) is PEFT's plain model, loads without this package, and needs a call of
    accelerate of its own.

    Dropout masks are drawn from torch's generator, but are others than PEFT's. Layers that read the same x (q, k, v;
    gate, up) are found in the first forward after this call and computed together from then on, under one mask for all
    of them; kernels.lora.group_siblings says where they still run alone, and DoRA's layers always do. Calls that the
    kernels cannot serve, and those that something around them watches operation by operation (hooks on all modules,
    tracers, counters of FLOPs, torch.func), run PEFT's own forward. Raises ImportError without PEFT, TypeError for what
    is no module, ValueError for a model without adapters.
    """
    _require(model)
    from .layer_parts import dtype_reason, parts_of
    from .tuner import swap

    swap(model)
    accelerated, left = [], {}
    for name, module, reason in _adapted(model):
        if reason is None:
            parts = parts_of(module)
            reason = parts if isinstance(parts, str) else dtype_reason(parts)
        if reason is None:
            accelerated.append(name)
        else:
            left[name] = reason
    if not accelerated and not left:
        raise ValueError(f"model is a {type(model).__name__} without PEFT layers, expected what get_peft_model returns")
    return Report(tuple(accelerated), left)


def restore(model: nn.Module) -> None:
    """Undoes accelerate: every layer is PEFT's own again, whatever was wrapped around it since.

    A layer whose class another library derived from ours since (fully_shard does) stays as it is, and a warning names
    it. Raises as accelerate does, but for a model without layers.
    """
    _require(model)
    from .tuner import CLASSES

    derived = []
    for name, module in model.named_modules():
        for ours in CLASSES:
            if type(module) is ours:
                module.__dict__.pop("siblings", None)
                module.__class__ = ours.stands_for
            elif isinstance(module, ours):
                derived.append(f"{name or 'model'} ({type(module).__name__})")
    if derived:
        warnings.warn(
            f"{', '.join(derived)} stays accelerated: another library derived a class from the accelerated one, "
            "expected restore before it",
            stacklevel=2,
        )


def _require(model: object) -> None:
    if find_spec("peft") is None:
        raise ImportError("peft is not installed, which accelerate and restore work on: pip install 'lorabench[peft]'")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}, expected a PEFT model")


def _adapted(model: nn.Module) -> Iterator[tuple[str, Any, str | None]]:
    """Every layer that PEFT adapted, with the reason why its class is not swapped, None where it is."""
    from peft.tuners.lora.layer import MultiheadAttention
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    from .fused_linear import Linear

    attention: tuple[str, ...] = ()
    for name, module in model.named_modules():
        if name.startswith(attention):
            continue  # MultiheadAttention reads the weights of its out_proj and never calls it
        if isinstance(module, MultiheadAttention):
            attention += (name + ".",)
        if isinstance(module, Linear):
            yield name, module, None
        elif isinstance(module, BaseTunerLayer):
            yield name, module, _why_not(module)
        elif isinstance(module, AuxiliaryTrainingWrapper):
            kind = type(module).__name__
            yield name, module, "modules_to_save" if kind == "ModulesToSaveWrapper" else f"{kind}, no LoRA layer"


def _why_not(layer: Any) -> str:
    from peft.tuners.lora import LoraLayer

    from .tuner import forward_replaced

    kind, home = type(layer).__name__, type(layer).__module__
    base = type(layer.get_base_layer()).__name__
    if not isinstance(layer, LoraLayer) or not home.startswith("peft.tuners.lora."):
        return f"{kind} of {home.removeprefix('peft.tuners.')}, not LoRA's own layer"
    if forward_replaced(layer):
        return "its forward was replaced by another library"
    if home.rpartition(".")[2] in _QUANTISED:
        return f"quantised base ({kind})"
    if kind == "ParamWrapper":
        return "LoRA over a single parameter (target_parameters)"
    return f"LoRA over {base}, not over nn.Linear or Conv1D"
