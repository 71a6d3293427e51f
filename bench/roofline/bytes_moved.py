"""Bytes that each part of a case has to read and write, by closed form, without torch. roofline.py says the rule."""

from dataclasses import dataclass, replace

from bench.case import Case
from bench.methods.method import INT64, Linear, Widths
from bench.methods.registry import method_of, trainable_params
from bench.roofline.gemm_shapes import GemmShapes, Layer
from bench.roofline.optimizer_states import state_bytes

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "amp-bf16": 2, "amp-fp16": 2}  # of a value that is computed with


@dataclass(frozen=True)
class Bytes:
    """Bytes by what a cache could do about them. Their sum is what a part reads and writes."""

    fresh: int = 0  # come from outside the iteration's reach, or leave it
    reused: int = 0  # read again after an earlier part: in L2 still, as far as they fit
    inner: int = 0  # handed on within the iteration: need never leave L2

    @property
    def total(self) -> int:
        return self.fresh + self.reused + self.inner


def widths(case: Case) -> Widths:
    compute = BYTES[case.precision]
    amp = case.precision.startswith("amp-")
    param = 4 if amp else compute
    adapter = BYTES[case.adapter_dtype] if case.adapter_dtype and method_of(case).adapts else param
    return Widths(compute, param, adapter, compute if amp else adapter, param if case.level == "linear" else compute)


def forward(case: Case, found: GemmShapes) -> Bytes:
    m, r, w = case.tokens, case.rank or 0, widths(case)
    passed = 0  # through the layers: their inputs and outputs
    fresh = inner = 0
    for group in found.groups:
        passed += m * group.k * w.x + m * sum(layer.n for layer in group.layers) * w.compute
    for _, layer in found.layers():
        fresh += layer.weights * w.param if layer.carries is None else layer.carries.weight_bytes(layer, w)
        if layer.trains is not None:
            read, kept = layer.trains.forward_bytes(layer, m, r, w)
            fresh += read
            inner += kept
        elif layer.rests is not None:
            fresh += layer.rests.resting_bytes(layer, r, w.adapter, for_dx=False)
    if not found.blocks:
        return Bytes(fresh + passed, 0, inner)
    inner += passed
    hidden = m * found.groups[0].k * w.param  # a block's input, or its output
    for block in found.blocks:
        fresh += block.norms * w.param
        inner += 2 * m * (block.q + block.kv) * w.compute  # q, k, v, o
    ends = found.ends
    if ends is None:
        return Bytes(fresh + 2 * hidden, 0, inner)
    rows = min(m, ends.vocabulary) * (not ends.tied) + min(case.seq, ends.positions)  # a tied one is read by the head
    fresh += m * INT64 + (rows * found.groups[0].k + ends.norm) * w.param
    return Bytes(fresh, 0, inner + (1 + 2 * len(found.blocks)) * hidden)


def backward(case: Case, found: GemmShapes) -> Bytes:
    m, r, w = case.tokens, case.rank or 0, widths(case)
    passed = 0  # gradients of the layers' inputs and outputs
    fresh = reused = inner = 0
    for group in found.groups:
        passed += m * sum(layer.n for layer, grad in zip(group.layers, group.y_grad, strict=True) if grad) * w.compute
        passed += m * group.k * w.x * group.x_grad
        if any(layer.trains is not None and layer.trains.reads_x for layer in group.layers):
            reused += m * group.k * w.compute  # x, for dW or dA
    for group, layer in found.layers():
        if group.x_grad:
            reused += _weight_for_dx(layer, w)
        if layer.trains is not None:
            written, again = layer.trains.backward_bytes(layer, m, r, w, group.x_grad)
            fresh += written
            reused += again
        elif layer.rests is not None and group.x_grad:
            reused += layer.rests.resting_bytes(layer, r, w.saved, for_dx=True)
    if not found.blocks:
        return Bytes(fresh + passed, reused, inner)
    inner += passed
    hidden = m * found.groups[0].k * w.param
    edges = 0  # gradients of the blocks' outputs and inputs
    for block in found.blocks:
        fresh += block.norms * w.param * block.norms_train
        edges += hidden * (block.y_grad + block.x_grad)
        q, k, v = block.qkv_grad
        if q or k or v:
            reused += m * (block.q + block.kv) * w.compute * (1 + (q or k))  # q and k; for dP also v and o
            inner += m * (block.q * (1 + q) + block.kv * (k + v)) * w.compute  # dO; dq, dk, dv
    ends = found.ends
    if ends is None:
        return Bytes(fresh + edges, reused, inner)
    if ends.train:  # gradients of embeddings are dense; a tied one's is the head's
        rows = ends.vocabulary * (not ends.tied) + ends.positions
        fresh += (rows * found.groups[0].k + ends.norm) * w.param
        reused += m * INT64
        inner += hidden
    return Bytes(fresh, reused, inner + edges)


def _weight_for_dx(layer: Layer, w: Widths) -> int:
    """W as backward reads it again: without the bias, and under autocast 16 bit wide, unless it is stored in fewer."""
    values = layer.n * layer.k
    if layer.carries is None:
        return values * w.compute
    return layer.carries.weight_bytes(Linear(layer.n, layer.k, values), replace(w, param=w.compute))


def optimizer(case: Case, found: GemmShapes) -> Bytes:
    """It reads parameter, gradient and its own state, AdamW's two moments, and writes all but the gradient.

    The method's refresh comes after it.
    """
    w = widths(case)
    values, state = trainable_params(case) * w.adapter, state_bytes(case, w.adapter)
    given, written = 2 * values, values + state
    for _, layer in found.layers():
        if layer.trains is not None:
            read, fresh = layer.trains.refresh_bytes(layer, case.rank or 0, w)
            given += read
            written += fresh
    return Bytes(state, given, written)
