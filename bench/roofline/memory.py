"""What a case needs of a GPU's memory, by closed form and without torch, so that it can be said before anything loads.

Two figures. At least: weights, adapters, gradients and the optimizer's state, which no order of work avoids. About:
with what forward keeps for backward and the loss's logits, for impl eager; the allocator's slack is in neither.
"""

from dataclasses import dataclass

from bench.case import Case
from bench.case.architectures import vocabulary_of
from bench.case.schema import LEAST_INNER
from bench.case.shapes import trains_ends
from bench.methods.method import Linear
from bench.methods.registry import method_of, methods, trainable_params
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
    trained, adapted = trainable_params(case), len(case.adapted) or 1
    there = trained // case.trained_at_a_time * adapted  # under lisa-G every block has its adapters
    method, rank = method_of(case), case.rank or 0
    layers = adapted * [Linear(p.out_features, p.in_features, p.params) for p in case.target_projections]
    adapters = method.adapter_bytes(there, len(layers), rank, width)
    adapters += sum(method.untrained_bytes(layer, rank, width) for layer in layers)
    stored = weights * width.param + sum(method.weight_bytes(x, width) - x.weights * width.param for x in layers)
    optimizer = resident_bytes(case, width.adapter) if step else 0
    return Need(stored, adapters, trained * width.adapter, optimizer, _activations(case))


def _activations(case: Case) -> int | None:
    """Level model alone: what is kept of the blocks that train and of frozen ones above the lowest of them, and the
    logits. Under lisa-G in the stage that trains the lowest block, in which gradients go furthest down.

    Under checkpointing each of these blocks keeps its input, and what selective keeps beside it; backward then computes
    one block at a time, when the logits are gone, and with them autocast's 16-bit copies of the weights that train.
    """
    shape = case.shape
    if case.level != "model" or shape is None:
        return None
    method = method_of(case)
    # A frozen block keeps no layer's input, as one of PaCA does but for a few columns.
    factors, frozen = method.kept(shape.model_type, bool(case.dropout)), methods()["paca"].kept(shape.model_type, False)
    if factors is None or frozen is None:
        return None
    q, kv, inner = widths_of(shape)
    wide = (shape.hidden_size, inner, q, kv)
    token, through = (sum(k * width for k, width in zip(f, wide, strict=True)) for f in (factors, frozen))
    stage = min(case.stages, key=min)
    ends = not method.adapts and trains_ends(case.trainable_layers)
    blocks = case.blocks - (0 if ends else min(stage))
    wider = {"fp32": FP32, "bf16": 1, "fp16": 1}.get(case.precision, AMP)
    logits = LOGITS * case.tokens * (vocabulary_of(shape.config) or 0)
    copies = 2 * shape.block_params * case.precision.startswith("amp-")  # in 16 bit, of fp32 weights, for dX
    own = copies - 2 * sum(p.params for p in case.target_projections) * (copies > 0 and method.quantises)  # made anew
    if case.gradient_checkpointing is not None:
        cast = copies * len(stage) * (not method.adapts)  # which autocast keeps of what trains until forward ends
        return blocks * checkpointed_bytes(case) + max(round(case.tokens * token * wider + own), logits + cast)
    training, resting = len(stage), blocks - len(stage)
    kept = case.tokens * (training * token + resting * through) * wider + training * own + resting * copies
    return round(kept) + logits


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
