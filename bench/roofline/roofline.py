"""What a case must cost at least: FLOPs, bytes and the roofline time, by closed form. Without torch.

What is counted is the method, not an implementation of it: the GEMMs of the textbook, in its order (Hu et al., 2021,
equation 3, for LoRA), each once and nothing recomputed. With M tokens, K inputs, N outputs, rank r:

    forward    2 M N K a layer;  LoRA + 2 M r (K + N)
    backward   dX 2 M N K where the layer's input requires grad, dW 2 M N K where its weight trains;
               LoRA dS, dB, dA: 2 M r (2 N + K), and dS A in dX: 2 M r K more;  PaCA 2 M N r
    attention  Q K^T and P V forward, dP, dQ, dK, dV backward, each 2 batch heads seq^2 head_dim, and half of it because
               causal: scores above the diagonal need not be computed

FLOPs are those of GEMMs, two for each multiplication with its addition, as torch.utils.flop_counter counts;
elementwise work, norms, softmax, embeddings, biases and the optimizer are not among them. gemm_shapes.py says which
gradients there are.

Bytes: each tensor that forward or backward has to read or write, once in each, at its own dtype. At level linear these
are x, W, bias, A, B, PaCA's index, y, dY, dX and the gradients, and what backward needs of forward (S = x A^T, or
x[:, index]); what kernels hand to each other (dS, a dropout mask, casts under autocast) could stay on the chip. At
levels block and model: all parameters and gradients, the blocks' own inputs and outputs, linear layers' inputs (once
for siblings that read the same) and outputs, q, k, v and o of the attention, token ids and the embeddings' rows;
elementwise work and norms are taken as fused with their neighbours, and the loss as handing on no more than the logits'
gradient. Under amp-* parameters and the residual stream are fp32, linear layers' outputs and what backward reads again
16 bit wide. Under lisa-G a pass is the mean over the stages of a cycle, rounded.
"""

from collections.abc import Callable

from bench.case import Case
from bench.roofline import bytes_moved
from bench.roofline.gemm_shapes import GemmShapes, Layer, cycle_of
from bench.roofline.peaks import Peaks

PARTS = {
    "forward": ("forward",),
    "backward": ("backward",),
    "forward-backward": ("forward", "backward"),
}


def parts(case: Case, pass_: str) -> tuple[str, ...]:
    """What a pass runs through, in its order: a step as many micro-steps as accumulate, and the optimizer."""
    if pass_ == "step":
        return (*PARTS["forward-backward"] * case.micro_steps, "optimizer")
    return PARTS[pass_]


def flops(case: Case, pass_: str) -> int | None:
    """FLOPs of a pass: forward, backward, forward-backward, or step (its micro-steps': an optimizer multiplies no
    matrices).

    None at levels block and model of an architecture without a closed form here.
    """
    found = _mean(case, lambda shapes: sum(_flops(case, shapes, part) for part in parts(case, pass_)))
    return None if found is None else round(found)


def compulsory_bytes(case: Case, pass_: str) -> int | None:
    """Bytes of a pass, by the module's rule: of forward-backward the sum of both, of step that of its micro-steps with
    AdamW's and the refresh.

    None as for flops.
    """
    found = _mean(case, lambda shapes: sum(_bytes(case, shapes, part).total for part in parts(case, pass_)))
    return None if found is None else round(found)


def _mean(case: Case, of: Callable[[GemmShapes], float]) -> float | None:
    """Over the stages of a case; None without a closed form."""
    found = cycle_of(case)
    return None if found is None else sum(n * of(shapes) for shapes, n in found) / sum(n for _, n in found)


def roofline_ms(case: Case, pass_: str, on: Peaks | None) -> float | None:
    """Roofline time: what a pass takes at least on a GPU with these peaks, in ms (column floor_ms).

    None without known peaks (a CPU) or a closed form. Forward, backward and optimizer follow one another, so theirs
    add up; each is the larger of FLOPs / peak and, for l2 = cold alone, bytes / bandwidth. Of the bytes those count
    that must pass between L2 and memory: the fresh ones, and the reused ones as far as they exceed L2, since backward
    finds in L2 what forward has just read. So it is less than compulsory_bytes suggest. A flush leaves L2 full of
    changed lines, so that writing, too, costs bandwidth at once.
    """
    if on is None:
        return None

    def ms(shapes: GemmShapes) -> float:
        seconds = 0.0
        for part in parts(case, pass_):
            compute = _flops(case, shapes, part) / (on.tflops(case.precision) * 1e12)
            seconds += max(compute, _memory_bytes(case, shapes, part, on) / (on.memory_tbs * 1e12))
        return seconds * 1e3

    return _mean(case, ms)


def _memory_bytes(case: Case, found: GemmShapes, part: str, on: Peaks) -> float:
    """What cannot have come from L2."""
    if case.l2 != "cold":
        return 0.0
    moved = _bytes(case, found, part)
    return moved.fresh + (0.0 if on.l2_mib is None else max(0.0, moved.reused - on.l2_mib * 2**20))


def _bytes(case: Case, found: GemmShapes, part: str) -> bytes_moved.Bytes:
    count = {"forward": bytes_moved.forward, "backward": bytes_moved.backward, "optimizer": bytes_moved.optimizer}[part]
    return count(case, found)


def _flops(case: Case, found: GemmShapes, part: str) -> int:
    return {"forward": _forward_flops, "backward": _backward_flops, "optimizer": lambda *_: 0}[part](case, found)


def _forward_flops(case: Case, found: GemmShapes) -> int:
    m, r = case.tokens, case.rank or 0
    total = sum(2 * case.batch * case.seq**2 * block.q for block in found.blocks)  # Q K^T and P V, halved
    for _, layer in found.layers():
        total += 2 * m * layer.n * layer.k * _products(case, layer)
        if layer.carries is not None:
            total += layer.carries.forward_flops(layer, m, r)
    return total


def _products(case: Case, layer: Layer) -> int:
    return 1 if layer.carries is None else layer.carries.products(bool(case.dropout))


def _backward_flops(case: Case, found: GemmShapes) -> int:
    m, r = case.tokens, case.rank or 0
    total = 0
    for block in found.blocks:
        q, k, v = block.qkv_grad
        total += case.batch * case.seq**2 * block.q * ((q or k) + q + k + v)  # dP, dQ, dK, dV, halved
    for group, layer in found.layers():
        total += 2 * m * layer.n * layer.k * group.x_grad * _products(case, layer)
        if layer.trains is not None:
            total += layer.trains.backward_flops(layer, m, r, group.x_grad)
        elif layer.rests is not None and group.x_grad:
            total += layer.rests.resting_flops(layer, m, r)
    return total
