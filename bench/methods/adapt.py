"""Where in a model the blocks and the adapted layers are, and how a layer is put in place of another."""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from bench.case import Case
from bench.case.shapes import adapted_block_indices
from kernels import LoRALinear, PaCALinear
from kernels.modules.blocks import decoder_blocks, replace
from kernels.paca.target_layers import seed_of

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

Trained = list[tuple[str, nn.Parameter]]


def trained_blocks(model: nn.Module, case: Case) -> list[tuple[str, nn.Module]]:
    """The blocks that train at some time, by their names in the model, as trainable_layers says: under lisa-G all of
    them. Not for linear."""
    if case.level == "block":
        return [("block", model.get_submodule("block"))]
    name, blocks = decoder_blocks(model)
    return [(f"{name}.{i}", blocks[i]) for i in adapted_block_indices(case.trainable_layers, len(blocks))]


def target_layers(model: nn.Module, case: Case) -> list[tuple[str, nn.Module]]:
    """The linear layers that the method adapts, by their names in the model, lowest first.

    Raises ValueError where the case's targets name no layer.
    """
    if case.level == "linear":
        return [(name, model.get_submodule(name)) for name in case.linear_layers]
    if not case.target_projections:
        raise ValueError(f"targets: {case.targets!r} names no linear layer of {case.model}")
    return [
        (f"{name}.{p.name}", block.get_submodule(p.name))
        for name, block in trained_blocks(model, case)
        for p in case.target_projections
    ]


def adapt(model: nn.Module, case: Case, wrap: Callable[[str, nn.Module], nn.Module]) -> Trained:
    """Freezes the model and replaces each target layer by wrap(its name, itself); returns what trains then."""
    model.requires_grad_(False)
    for name, layer in target_layers(model, case):
        replace(model, name, wrap(name, layer).train(layer.training))
    return trained(model)


def adapt_lora(model: nn.Module, case: Case, kind: type[LoRALinear], frozen: Sequence[str] = ()) -> Trained:
    """Layers of that class, which train A (r, K) and B (N, r), but for those that are `frozen`: lora_a, lora_b."""
    assert case.rank is not None and case.alpha is not None
    rank, alpha, dropout, dtype = case.rank, case.scale * case.rank, case.dropout or 0.0, adapter_dtype(case)

    def wrap(_: str, layer: nn.Module) -> nn.Module:
        adapted = kind(layer, rank, alpha, dropout, dtype)
        for part in frozen:
            adapted.get_parameter(part).requires_grad_(False)
        return adapted

    return adapt(model, case, wrap)


def adapt_paca(model: nn.Module, case: Case, kind: type[PaCALinear]) -> Trained:
    """Layers of that class, which train `columns` (N, r); which columns they are follows from the layer's name."""
    assert case.rank is not None and case.alpha is not None
    rank, alpha, dtype = case.rank, case.alpha, adapter_dtype(case)
    return adapt(model, case, lambda name, layer: kind(layer, rank, alpha, seed=seed_of(name), adapter_dtype=dtype))


def trained(model: nn.Module) -> Trained:
    """The parameters that require grad, each once, by name."""
    return [(name, p) for name, p in model.named_parameters() if p.requires_grad]


def adapter_dtype(case: Case) -> torch.dtype | None:
    """The dtype of A and B, or of the live columns; None stands for the base weight's."""
    return None if case.adapter_dtype is None else DTYPES[case.adapter_dtype]
