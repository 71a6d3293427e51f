"""A strategy's method put on a model, with trained values in fp32; and what was trained, saved for others to load."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.case.shapes import adapted_block_indices, trains_ends
from bench.methods.adapt import decoder_blocks
from bench.models.checkpointing import checkpoint_blocks
from bench.train import branches
from bench.train.bitfit import put_bitfit, save_bitfit
from bench.train.quantised import merge_qlora, put_qpaca, quantise_qlora, save_qpaca
from bench.train.strategy import Strategy

_AUTOCAST: dict[str | None, torch.dtype] = {"fp16": torch.float16, "bf16": torch.bfloat16}


def weights_dtype(precision: str) -> torch.dtype:
    """In which dtype the model is loaded: autocast keeps fp32 weights, as the paper's "16-bit mixed" does."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def autocast_dtype(strategy: Strategy) -> str | None:
    """'fp16', 'bf16', or None where nothing is cast: adapters compute beside 16-bit weights without it, but weights
    that themselves train do so in fp32."""
    if strategy.precision.startswith("amp-"):
        return strategy.precision.removeprefix("amp-")
    return "bf16" if strategy.precision == "bf16" and strategy.method == "full" else None


def make_trainable(
    model: Any,
    strategy: Strategy,
    seed: int,
    impl: str,
    say: Callable[[str], None],
    device: torch.device,
    whole: bool = False,
) -> Any:
    """The model as it trains: branches by PEFT; PaCA and BitFit in place; or its own weights. What trains is in fp32.

    impl (of LoRA and its kin): peft, or triton: the same PEFT model through fused kernels. device: where weights are
    quantised. whole: save_trained is to write a whole checkpoint. Raises ValueError where the strategy does not fit the
    model.
    """
    blocks_name, blocks = decoder_blocks(model)
    chosen = _chosen(strategy, len(blocks))
    if strategy.checkpointing != "none":
        checkpoint_blocks(model, strategy.checkpointing)
    if strategy.method == "full":
        return _full(model, blocks, chosen)
    targets = _targets(model, blocks, strategy)
    layers = _layers(blocks_name, blocks, range(len(blocks)) if chosen is None else chosen, targets)
    if strategy.method == "qlora":
        quantise_qlora(model, device, _AUTOCAST.get(autocast_dtype(strategy), model.dtype))
    if strategy.method in branches.METHODS:
        pattern = blocks_name.rpartition(".")[2]
        return branches.put_branches(model, strategy, targets, chosen, pattern, impl, say)
    if strategy.method == "bitfit":
        return put_bitfit(model, layers, whole)
    from kernels.paca import paca

    assert strategy.rank is not None and strategy.alpha is not None
    if strategy.method == "qpaca":
        return put_qpaca(model, layers, strategy.rank, strategy.alpha, device, seed)
    named = strategy.targets if strategy.targets == "all-linear" else targets
    return paca(model, rank=strategy.rank, alpha=strategy.alpha, targets=named, layers=chosen, seed=seed)


def carried(model: Any) -> dict[str, nn.Parameter]:
    """What a checkpoint holds, by name: all that trains at any time, and LoRA-FA's A, which was drawn at random. The
    rest is the tuned checkpoint's."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad or ".lora_A." in name}


def _chosen(strategy: Strategy, count: int) -> Sequence[int] | None:
    """The blocks that train at some time, None for all of them and what lies beside them."""
    if strategy.trainable_layers == "all" or (strategy.method == "full" and trains_ends(strategy.trainable_layers)):
        return None
    return adapted_block_indices(strategy.trainable_layers, count)


def _layers(name: str, blocks: nn.ModuleList, chosen: Sequence[int], targets: list[str]) -> list[str]:
    """The full names of the linear layers called `targets` in those blocks."""
    return [
        f"{name}.{i}.{inner}"
        for i in chosen
        for inner, module in blocks[i].named_modules()
        if _linear(module) and inner.rpartition(".")[2] in targets
    ]


def _linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _targets(model: nn.Module, blocks: nn.ModuleList, strategy: Strategy) -> list[str]:
    """The names of the adapted layers, as PEFT's target_modules: every linear layer of the blocks, or those named."""
    there = list(dict.fromkeys(n.rpartition(".")[2] for n, m in blocks[0].named_modules() if _linear(m)))
    named = there if strategy.targets == "all-linear" else list(strategy.targets)
    for name in named:
        if name not in there:
            raise ValueError(
                f"targets: {name!r} is no linear layer of {type(model).__name__}; it has {', '.join(there)}"
            )
    return named


def _full(model: nn.Module, blocks: nn.ModuleList, chosen: Sequence[int] | None) -> nn.Module:
    model.requires_grad_(chosen is None)
    for i in chosen or ():
        blocks[i].requires_grad_(True)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def save_trained(model: Any, strategy: Strategy, tokenizer: Any, folder: Path, whole: bool) -> None:
    """Writes the folder at once, when all of it is there: LoRA and its kin in PEFT's own format, PaCA, QPaCA and BitFit
    as their trained values, full fine-tuning as a checkpoint. whole: a checkpoint of the merged model in every case;
    the model is spent then.
    """
    draft = folder.with_name(folder.name + ".new")
    shutil.rmtree(draft, ignore_errors=True)
    if strategy.method == "paca":
        from kernels.paca import save_paca

        save_paca(model, draft, merged=whole)
    elif strategy.method == "bitfit":
        save_bitfit(model, draft, whole)
    elif strategy.method == "qpaca":
        save_qpaca(model, draft, whole)
    elif strategy.method == "qlora" and whole:
        merge_qlora(model).save_pretrained(draft)
    else:
        plain = model.merge_and_unload() if strategy.method in branches.METHODS and whole else model
        plain.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
