"""A training run of a small language model with LoRA, under PEFT or accelerated, and the spread of PEFT's own runs."""

from __future__ import annotations

import torch
from peft import LoraConfig
from torch import Tensor

from tests.kernels.peft.peft_models import VOCABULARY, gpt2, llama, tune

STEPS = 30


def train(
    kind: str,
    accelerated: bool = False,
    order: int | None = None,
    dtype: torch.dtype = torch.float32,
    scale: float = 1.0,
    seed: int = 0,
    steps: int = STEPS,
) -> Tensor:
    """The losses (steps,) of AdamW on 8 x 12 tokens a step, float64.

    order: a seed that permutes the rows of each batch. scale: what the adapters' scaling is multiplied by.
    """
    torch.manual_seed(0)
    make = {"gpt2": gpt2, "llama": llama}[kind]
    lora = LoraConfig(target_modules="all-linear", r=4, lora_alpha=16, fan_in_fan_out=kind == "gpt2")
    model = tune(make(), accelerated, lora).to(dtype)
    if scale != 1.0:
        for module in model.modules():
            if hasattr(module, "lora_A"):
                module.scaling = {name: scale * value for name, value in module.scaling.items()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    # Few sentences, so that there is something to learn.
    data = torch.Generator().manual_seed(seed)
    sentences = torch.randint(VOCABULARY, (4, 12), generator=data)
    shuffle = None if order is None else torch.Generator().manual_seed(order)
    losses = []
    for _ in range(steps):
        ids = sentences[torch.randint(len(sentences), (8,), generator=data)]
        if shuffle is not None:
            ids = ids[torch.randperm(8, generator=shuffle)]
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses, dtype=torch.float64)


def distance(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of two loss curves."""
    return (ours - theirs).abs().max().item()


def spread(kind: str, theirs: Tensor, steps: int = STEPS) -> float:
    """How far PEFT's own curve moves by the order of its sums: three permutations, and float64."""
    permuted = [distance(train(kind, order=order, steps=steps), theirs) for order in range(3)]
    return max(*permuted, distance(train(kind, dtype=torch.float64, steps=steps), theirs))
