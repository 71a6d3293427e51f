"""Gradient checkpointing of decoder blocks: of each block forward keeps the input, and backward computes it again.

full: all of a block is computed again. selective: what is costly is kept, and only what is cheap is computed again
(torch's selective activation checkpointing). Kept are the results of attention, where it is one of torch's fused
operators, and of products of matrices, with two exceptions.

A product over an inner dimension below LEAST_INNER is bound by memory (it does as many FLOPs for each byte of a 16-bit
result; by data sheet an A100 does 156 in the time that it moves a byte, an H100 295): to compute it again costs about
what it costs to write and read its result. So is the second one of a LoRA branch, from rank r to N, whose result is as
wide as the layer's and which autograd alone would not keep either.

Where an implementation writes into the result of a product afterwards (Impl.in_place; the kernels do), nothing inside
of an autograd.Function is kept: torch would not see what a Triton kernel writes. Such layers are computed again as a
whole. So are norms, activation functions, sums, rotary embeddings, casts and dropout.
"""

import warnings
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from bench.case.schema import LEAST_INNER

# By torch's names; the argument in which the inner dimension is the last one.
PRODUCTS = {"aten::mm": 0, "aten::bmm": 0, "aten::addmm": 1, "aten::baddbmm": 1}
ATTENTION = frozenset(
    f"aten::_scaled_dot_product_{kind}"
    for kind in (
        "flash_attention", "efficient_attention", "cudnn_attention", "flash_attention_for_cpu",
        "fused_attention_overrideable",
    )
)  # fmt: skip


def _policy(inside: bool, _context: Any, func: Any, *args: Any, **_kwargs: Any) -> CheckpointPolicy:
    name = func.name()  # with its overload: one that writes into an argument is none of them
    kept = name in ATTENTION or (name in PRODUCTS and args[PRODUCTS[name]].shape[-1] >= LEAST_INNER)
    kept &= inside or torch.is_grad_enabled()  # which it is not inside of an autograd.Function
    return CheckpointPolicy.MUST_SAVE if kept else CheckpointPolicy.PREFER_RECOMPUTE


def _contexts(inside: bool) -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    modes = create_selective_checkpoint_contexts(partial(_policy, inside))
    for mode in modes:  # else PEFT's accelerated layers would compute as PEFT does while it watches
        mode.sees_fused_layers = True
    return modes


def options(word: str, preserve_rng_state: bool = True, inside: bool = False) -> dict[str, Any]:
    """What torch.utils.checkpoint is called with for a word of the axis. What drops must preserve the random state;
    inside: products inside of an autograd.Function may be kept."""
    more = {"context_fn": partial(_contexts, inside)} if word == "selective" else {}
    return {"use_reentrant": False, "preserve_rng_state": preserve_rng_state, **more}


def checkpoint_blocks(model: Any, word: str, **more: bool) -> None:
    """Turns it on in a language model of transformers, by its own switch; called once more, with other options.

    The switch also has the embeddings' output require grad, which reentrant checkpoints need: that is taken back, since
    gradients would go down through frozen blocks for nothing. Raises ValueError where the architecture has none.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # transformers 5.23 gives the switch another name
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options(word, **more))
    with suppress(AttributeError):  # versions that do not ask for it have nothing to take back
        model.disable_input_require_grads()


def checkpoint_block(block: nn.Module, word: str, **more: bool) -> None:
    """The same for one block of such a model, which does for itself what the model's switch makes it do."""
    if not hasattr(block, "gradient_checkpointing"):
        raise ValueError(f"{type(block).__name__} is no block that transformers can checkpoint")
    setattr(block, "gradient_checkpointing", True)  # noqa: B010
    setattr(block, "_gradient_checkpointing_func", partial(checkpoint, **options(word, **more)))  # noqa: B010
