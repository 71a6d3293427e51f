"""Where in a model the blocks and the adapted layers are, and how a layer is put in place of another."""

from collections.abc import Callable

import torch
from torch import nn

from bench.case import Case
from bench.shapes import trainable_blocks

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

Trained = list[tuple[str, nn.Parameter]]


def decoder_blocks(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """The name and the list of the decoder blocks: the longest list of equal modules that lies in no other such list.

    Raises ValueError where there is none.
    """
    found: list[tuple[str, nn.ModuleList]] = []
    for name, module in model.named_modules():
        inner = any(name.startswith(outer + ".") for outer, _ in found)  # the experts of a block, say
        if isinstance(module, nn.ModuleList) and len(module) > 0 and not inner and _equal(module):
            found.append((name, module))
    if not found:
        raise ValueError(f"{type(model).__name__} has no list of equal decoder blocks")
    return max(found, key=lambda item: len(item[1]))


def _equal(blocks: nn.ModuleList) -> bool:
    """By their class: once a method is applied, the upper blocks have parameters that the lower ones lack."""
    return any(True for _ in blocks[0].parameters()) and all(type(block) is type(blocks[0]) for block in blocks)


def trained_blocks(model: nn.Module, case: Case) -> list[tuple[str, nn.Module]]:
    """The blocks that train, by their names in the model: the upper ones, as trainable_layers says. Not for linear."""
    if case.level == "block":
        return [("block", model.get_submodule("block"))][: trainable_blocks(case.trainable_layers, 1)]
    name, blocks = decoder_blocks(model)
    first = len(blocks) - trainable_blocks(case.trainable_layers, len(blocks))
    return [(f"{name}.{i}", block) for i, block in enumerate(blocks) if i >= first]


def target_layers(model: nn.Module, case: Case) -> list[tuple[str, nn.Module]]:
    """The linear layers that the method adapts, by their names in the model, lowest first.

    Raises ValueError where the case's targets name no layer.
    """
    if case.level == "linear":
        return [("layer", model.get_submodule("layer"))]
    if not case.target_projections:
        raise ValueError(f"targets: {case.targets!r} names no linear layer of {case.model}")
    return [
        (f"{name}.{p.name}", block.get_submodule(p.name))
        for name, block in trained_blocks(model, case)
        for p in case.target_projections
    ]


def replace(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Puts `layer` where the module called `name` is."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, layer)


def adapt(model: nn.Module, case: Case, wrap: Callable[[str, nn.Module], nn.Module]) -> Trained:
    """Freezes the model and replaces each target layer by wrap(its name, itself); returns what trains then."""
    model.requires_grad_(False)
    for name, layer in target_layers(model, case):
        replace(model, name, wrap(name, layer).train(layer.training))
    return trained(model)


def trained(model: nn.Module) -> Trained:
    """The parameters that require grad, each once, by name."""
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def adapter_dtype(case: Case) -> torch.dtype | None:
    """The dtype of A and B, or of the live columns; None stands for the base weight's."""
    return None if case.adapter_dtype is None else DTYPES[case.adapter_dtype]
