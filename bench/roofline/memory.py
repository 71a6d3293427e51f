"""What a case needs of a GPU's memory, by closed form and without torch, so that it can be said before anything loads.

Two figures. At least: weights, adapters, gradients and the optimizer's state, which no order of work avoids. About:
with what forward keeps for backward and the loss's logits, for impl eager; the allocator's slack is in neither.
"""

from dataclasses import dataclass

from bench.case import Case
from bench.case.architectures import vocabulary_of
from bench.case.schema import LEAST_INNER
from bench.case.shapes import trainable_blocks
from bench.methods.registry import method_of, trainable_params
from bench.roofline.bytes_moved import widths
from bench.roofline.gemm_shapes import widths_of
from bench.roofline.optimizer_states import resident_bytes

FP32 = 1.8  # as much in fp32: masks and what norms keep are no wider
AMP = 1.2  # under autocast: the residual stream and the norms are fp32
LOGITS = 12  # bytes for each token and word: 16-bit logits, in fp32, their log-softmax, and the gradient of one of them


@dataclass(frozen=True)
class Need:
    """Bytes."""

    weights: int  # of the model
    adapters: int  # LoRA's A and B; PaCA's columns, index and pretrained copy
    gradients: int
    optimizer: int  # its state, as AdamW's two moments, without what is paged; none where no step is timed
    activations: int | None  # None for an architecture without a closed form here

    @property
    def at_least(self) -> int:
        return self.weights + self.adapters + self.gradients + self.optimizer

    @property
    def about(self) -> int | None:
        return None if self.activations is None else self.at_least + self.activations


def need(case: Case, step: bool) -> Need:
    """What a case needs; `step` where whole optimizer steps are among its passes."""
    width = widths(case)
    if case.level == "linear":
        weights = sum(p.params for p in case.projections)
    else:
        assert case.shape is not None
        weights = case.shape.block_params if case.level == "block" else case.shape.num_params
    trained = trainable_params(case)
    adapters = method_of(case).adapter_bytes(trained, _adapted_layers(case), case.rank or 0, width)
    optimizer = resident_bytes(case, width.adapter) if step else 0
    return Need(weights * width.param, adapters, trained * width.adapter, optimizer, _activations(case))


def _adapted_layers(case: Case) -> int:
    blocks = 1 if case.level == "linear" else trainable_blocks(case.trainable_layers, case.blocks)
    return blocks * len(case.target_projections)


def _activations(case: Case) -> int | None:
    """Level model alone: what is kept of the blocks that train and of those above them, and the logits.

    Under checkpointing each of these blocks keeps its input, and what selective keeps beside it; backward then computes
    one block at a time, when the logits are gone.
    """
    shape = case.shape
    if case.level != "model" or shape is None:
        return None
    factors = method_of(case).kept(shape.model_type, bool(case.dropout))
    if factors is None:
        return None
    q, kv, inner = widths_of(shape)
    wide = (shape.hidden_size, inner, q, kv)
    token = sum(k * width for k, width in zip(factors, wide, strict=True))
    blocks = trainable_blocks(case.trainable_layers, case.blocks)
    block = case.tokens * token * {"fp32": FP32, "bf16": 1, "fp16": 1}.get(case.precision, AMP)
    if case.precision.startswith("amp-"):
        block += 2 * shape.block_params  # the 16-bit copies of fp32 weights that dX multiplies with
    logits = LOGITS * case.tokens * (vocabulary_of(shape.config) or 0)
    if case.gradient_checkpointing is None:
        return round(blocks * block) + logits
    return blocks * checkpointed_bytes(case) + max(round(block), logits)


def checkpointed_bytes(case: Case) -> int:
    """What a block that is checkpointed keeps: its input, and under selective, of impl eager, the results of its linear
    layers, of attention, and S = x A^T."""
    shape, w = case.shape, widths(case)
    assert shape is not None
    values = case.tokens * shape.hidden_size * w.param
    if case.gradient_checkpointing == "selective":
        wide = [p.out_features for p in shape.projections if p.in_features >= LEAST_INNER]
        wide += [case.rank or 0] * (method_of(case).branch * len(case.target_projections))
        values += case.tokens * (sum(wide) + widths_of(shape)[0]) * w.compute
    return values


def too_large(case: Case, step: bool, memory_mib: int | None) -> str | None:
    """Why a case cannot fit into that much memory, in a sentence; None where it may, or nothing is known of it."""
    if memory_mib is None or need(case, step).at_least <= memory_mib * 2**20:
        return None
    return f"{sentence(case, step)}; the GPU has {size_text(memory_mib * 2**20)}. Nothing was loaded"


def sentence(case: Case, step: bool) -> str:
    """'needs at least 25.1 GiB (weights 12.6, gradients 12.6), about 31 GiB with activations'."""
    found = need(case, step)
    named = {"weights": found.weights, "adapters": found.adapters, "gradients": found.gradients}
    named["optimizer state"] = found.optimizer
    parts = ", ".join(f"{name} {size_text(value)}" for name, value in named.items() if value)
    about = "" if found.about is None else f", about {size_text(found.about)} with activations"
    return f"needs at least {size_text(found.at_least)} ({parts}){about}"


def size_text(size: int | None) -> str:
    """Bytes for people; nothing for None."""
    if size is None:
        return ""
    mib = size / 2**20
    return f"{mib:.3g} MiB" if mib < 1000 else f"{mib / 1024:.3g} GiB"
