"""A strategy's method put on a model, with trained values in fp32; and what was trained, saved for others to load."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.case.shapes import trainable_blocks
from bench.methods.adapt import decoder_blocks
from bench.models.checkpointing import checkpoint_blocks
from bench.train.strategy import Strategy


def weights_dtype(precision: str) -> torch.dtype:
    """In which dtype the model is loaded: autocast keeps fp32 weights, as the paper's "16-bit mixed" does."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def autocast_dtype(strategy: Strategy) -> str | None:
    """'fp16', 'bf16', or None where nothing is cast: adapters compute beside 16-bit weights without it, but weights
    that themselves train do so in fp32."""
    if strategy.precision.startswith("amp-"):
        return strategy.precision.removeprefix("amp-")
    return "bf16" if strategy.precision == "bf16" and strategy.method == "full" else None


def make_trainable(model: Any, strategy: Strategy, seed: int, impl: str, say: Callable[[str], None]) -> Any:
    """The model as it trains: LoRA by PEFT, PaCA in place, or its own weights. What trains is in fp32.

    impl (LoRA only): peft, or triton: the same PEFT model through fused kernels. Raises ValueError where the
    strategy does not fit the model.
    """
    blocks_name, blocks = decoder_blocks(model)
    count = trainable_blocks(strategy.trainable_layers, len(blocks))
    if strategy.gradient_checkpointing:
        checkpoint_blocks(model, "selective" if strategy.gradient_checkpointing == "selective" else "full")
    upper = None if strategy.trainable_layers == "all" else range(len(blocks) - count, len(blocks))
    if strategy.method == "full":
        return _full(model, blocks, upper)
    targets = _targets(model, blocks, strategy)
    if strategy.method == "lora":
        return _lora(model, strategy, targets, upper, blocks_name, impl, say)
    from kernels.paca import paca

    assert strategy.rank is not None and strategy.alpha is not None
    named = strategy.targets if strategy.targets == "all-linear" else targets
    return paca(model, rank=strategy.rank, alpha=strategy.alpha, targets=named, layers=upper, seed=seed)


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


def _full(model: nn.Module, blocks: nn.ModuleList, upper: range | None) -> nn.Module:
    model.requires_grad_(upper is None)
    for i in upper or ():
        blocks[i].requires_grad_(True)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def _lora(
    model: Any,
    strategy: Strategy,
    targets: list[str],
    upper: range | None,
    blocks_name: str,
    impl: str,
    say: Callable[[str], None],
) -> Any:
    from peft import LoraConfig, get_peft_model

    assert strategy.rank is not None and strategy.alpha is not None
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=strategy.rank,
        lora_alpha=strategy.alpha,  # type: ignore[arg-type]  # PEFT divides it by r: no need of an int
        lora_dropout=strategy.dropout,
        target_modules=targets,
        layers_to_transform=None if upper is None else list(upper),
        layers_pattern=None if upper is None else blocks_name.rpartition(".")[2],
        fan_in_fan_out=any(type(m).__name__ == "Conv1D" for m in model.modules()),
    )
    tuned = get_peft_model(model, config)
    if impl == "triton":
        from kernels.peft import accelerate

        say(str(accelerate(tuned)))
    return tuned


def save_trained(model: Any, strategy: Strategy, tokenizer: Any, folder: Path, whole: bool) -> None:
    """Writes the folder at once, when all of it is there: LoRA in PEFT's own format, PaCA as its trained values, full
    fine-tuning as a checkpoint. whole: a checkpoint of the merged model in every case; the model is spent then.
    """
    draft = folder.with_name(folder.name + ".new")
    shutil.rmtree(draft, ignore_errors=True)
    if strategy.method == "paca":
        from kernels.paca import save_paca

        save_paca(model, draft, merged=whole)
    else:
        plain = model.merge_and_unload() if strategy.method == "lora" and whole else model
        plain.save_pretrained(draft)
    tokenizer.save_pretrained(draft)
    shutil.rmtree(folder, ignore_errors=True)
    draft.rename(folder)
