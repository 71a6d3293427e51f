"""What a case must cost at least: FLOPs, bytes and a floor in time, by closed form, without torch.

What is counted is the method, not an implementation of it: the products of the textbook, in its order (Hu et al., 2021,
equation 3, for LoRA), each once and nothing recomputed. With M tokens, K inputs, N outputs, rank r:

    forward    2 M N K a layer;  LoRA + 2 M r (K + N)
    backward   dX 2 M N K where the layer's input requires grad, dW 2 M N K where its weight trains;
               LoRA dS, dB, dA = 2 M r (2 N + K), and dS A = 2 M r K more for dX;  PaCA 2 M N r
    attention  Q K^T and P V forward, dP, dQ, dK, dV backward, each 2 batch heads seq^2 head_dim, and half of it because
               causal: scores above the diagonal need not be computed

FLOPs are those of matrix products, two for each multiplication with its addition, as torch.utils.flop_counter counts;
elementwise work, norms, softmax, embeddings, biases and the optimizer are not among them. Which gradients there are
follows autograd: nothing is computed for a tensor below which nothing trains.

Bytes: each tensor that the pass has to read or write, once, at its own dtype; what the kernels in between hand to each
other at level linear (dS, the dropout mask, casts under autocast) could stay on the chip and is left out. At levels
block and model: parameters, gradients, the blocks' own inputs and outputs, linear layers' inputs (once for siblings
that read the same) and outputs, q, k, v and o of the attention; elementwise work and norms are taken as fused with
their neighbours, and the loss as reading no more than the logits' gradient. Under amp-* parameters and the residual
stream are fp32; linear layers' outputs, and all that backward reads again, are 16 bit wide.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.case import Case
from bench.peaks import Board, board
from bench.shapes import ModelShape, trainable_blocks

__all__ = ["Board", "Traffic", "board", "compulsory_bytes", "floor_ms", "flops", "traffic"]

# Architectures whose block is Llama's, as far as products go. Others have a closed form at level linear only.
LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3")
DEFAULT_VOCABULARY = {"gpt2": 50257, "llama": 32000}  # transformers' own, where a config leaves it out
WIDTH = {"fp32": 4, "bf16": 2, "fp16": 2, "amp-bf16": 2, "amp-fp16": 2}  # bytes, of what is computed in
INT64 = 8


@dataclass(frozen=True)
class Traffic:
    """Bytes by what a cache could do about them. Their sum is what a pass reads and writes."""

    fresh: int = 0  # the pass is the first of the iteration to touch them, or the last
    reused: int = 0  # read again after an earlier pass: in L2 still, as far as they fit
    inner: int = 0  # written and read within the iteration: need never leave L2

    def __add__(self, other: "Traffic") -> "Traffic":
        return Traffic(self.fresh + other.fresh, self.reused + other.reused, self.inner + other.inner)

    @property
    def total(self) -> int:
        return self.fresh + self.reused + self.inner


@dataclass(frozen=True)
class _Layer:
    n: int  # outputs
    k: int  # inputs
    weights: int  # values, the bias among them
    trains: str | None  # full, lora, paca; None where frozen


@dataclass(frozen=True)
class _Group:
    """Linear layers that read the same input: q, k, v; gate, up."""

    layers: tuple[_Layer, ...]
    x_grad: bool  # the input requires grad

    @property
    def y_grad(self) -> list[bool]:
        return [self.x_grad or layer.trains is not None for layer in self.layers]


@dataclass(frozen=True)
class _Block:
    groups: tuple[_Group, ...]
    q: int  # width of q and of the attention's output: heads x head_dim
    kv: int  # width of k and of v
    qkv_grad: tuple[bool, bool, bool]
    norms: int  # values in the norms
    trains_fully: bool
    x_grad: bool
    y_grad: bool


@dataclass(frozen=True)
class _Ends:
    """What lies around the blocks of a model."""

    head: _Group
    width: int
    vocabulary: int
    positions: int  # learned ones
    tied: bool
    norm: int
    trains: bool


def flops(case: Case, pass_: str) -> int | None:
    """FLOPs of one pass: forward, backward, forward-backward, or step (the same: an optimizer multiplies no matrices).

    None at levels block and model of an architecture without a closed form here.
    """
    if _unknown(case):
        return None
    forward, backward = _flops(case)
    return {"forward": forward, "backward": backward, "forward-backward": forward + backward}[_without_step(pass_)]


def compulsory_bytes(case: Case, pass_: str) -> int | None:
    """Bytes of one pass, by the module's rule. forward-backward is the sum of both; step adds the optimizer's.

    The optimizer is AdamW: it reads parameter, gradient and two moments and writes all but the gradient, at the
    parameter's dtype. PaCA's refresh reads columns and index and writes the live columns. None as for flops.
    """
    return None if _unknown(case) else sum(traffic(case, p).total for p in _parts(pass_))


def floor_ms(case: Case, pass_: str, on: Board | None) -> float | None:
    """No run of this pass takes less on that board, in ms; None without a known board (a CPU) or closed form.

    For each of forward and backward, which follow each other, the larger of FLOPs / peak and, for l2 = cold alone,
    bytes / bandwidth. Of the bytes, those count that have to pass between L2 and memory: fresh ones, and reused ones as
    far as they exceed L2. That is less than compulsory_bytes: backward finds in L2 what forward has just read. A flush
    leaves L2 full of changed lines, so that writing, too, costs bandwidth at once.
    """
    if on is None or _unknown(case):
        return None
    compute = dict(zip(("forward", "backward"), _flops(case), strict=True))
    total = 0.0
    for part in _parts(pass_):
        seconds = compute.get(part, 0) / (on.tflops(case.precision) * 1e12)
        if case.l2 == "cold":
            t = traffic(case, part)
            l2 = t.reused if on.l2_mib is None else on.l2_mib * 2**20
            seconds = max(seconds, (t.fresh + max(0.0, t.reused - l2)) / (on.memory_tbs * 1e12))
        total += seconds * 1e3
    return total


def traffic(case: Case, part: str) -> Traffic:
    """Bytes of forward, backward or optimizer (with PaCA's refresh), by where they come from."""
    return {"forward": _forward, "backward": _backward, "optimizer": _optimizer}[part](case)


def _parts(pass_: str) -> tuple[str, ...]:
    both = ("forward", "backward")
    return {"forward-backward": both, "step": (*both, "optimizer")}.get(pass_, (pass_,))


def _without_step(pass_: str) -> str:
    return "forward-backward" if pass_ == "step" else pass_


# What there is, and which of it requires grad


def _unknown(case: Case) -> bool:
    if case.level == "linear":
        return False
    assert case.shape is not None
    if case.shape.model_type not in ("gpt2", *LLAMA_LIKE):
        return True
    return case.level == "model" and _vocabulary(case.shape) is None


def _vocabulary(shape: ModelShape) -> int | None:
    return shape.config.get("vocab_size", DEFAULT_VOCABULARY.get(shape.model_type))


def _structure(case: Case) -> tuple[list[_Block], _Ends | None]:
    """The blocks, lowest first, and what lies around them at level model."""
    assert case.shape is not None
    shape = case.shape
    whole = case.level == "model" and case.trainable_layers == "all"
    fully = whole and case.method == "full"
    frozen = case.blocks - trainable_blocks(case.trainable_layers, case.blocks)
    blocks: list[_Block] = []
    grad = case.level == "block" or fully  # an inner block's input requires grad; so do trained embeddings
    for i in range(case.blocks):
        blocks.append(_block(case, shape, i >= frozen, grad))
        grad = blocks[-1].y_grad
    if case.level == "block":
        return blocks, None
    width, vocabulary = shape.hidden_size, _vocabulary(shape)
    assert vocabulary is not None
    gpt2 = shape.model_type == "gpt2"
    tied = bool(shape.config.get("tie_word_embeddings", gpt2))
    positions = shape.max_positions if gpt2 else 0
    norm = shape.outside_params - (vocabulary * (1 if tied else 2) + positions) * width
    head = _Layer(vocabulary, width, vocabulary * width, "full" if fully else None)
    return blocks, _Ends(_Group((head,), grad), width, vocabulary, positions, tied, norm, fully)


def _block(case: Case, shape: ModelShape, trains: bool, x_grad: bool) -> _Block:
    fully = trains and case.method == "full"
    targets = {p.name for p in case.target_projections} if trains and not fully else set()
    by_name = {p.name: p for p in shape.projections}

    def group(grad: bool, *names: str) -> _Group:
        return _Group(
            tuple(
                _Layer(
                    p.out_features, p.in_features, p.params, "full" if fully else case.method * (n in targets) or None
                )
                for n, p in ((n, by_name[n]) for n in names)
            ),
            grad or fully,  # a trained norm in front of it requires grad
        )

    if shape.model_type == "gpt2":
        qkv = group(x_grad, "attn.c_attn")
        q_grad, k_grad, v_grad = qkv.y_grad * 3
        out = group(any(qkv.y_grad), "attn.c_proj")
        q = kv = shape.hidden_size
        up = group(x_grad or any(out.y_grad), "mlp.c_fc")
        down = group(any(up.y_grad), "mlp.c_proj")
    else:
        qkv = group(x_grad, *(f"self_attn.{x}_proj" for x in "qkv"))
        q_grad, k_grad, v_grad = qkv.y_grad
        out = group(any(qkv.y_grad), "self_attn.o_proj")
        q, kv = qkv.layers[0].n, qkv.layers[1].n
        up = group(x_grad or any(out.y_grad), "mlp.gate_proj", "mlp.up_proj")
        down = group(any(up.y_grad), "mlp.down_proj")
    norms = shape.block_params - sum(p.params for p in shape.projections)
    y_grad = x_grad or any(out.y_grad) or any(down.y_grad)
    return _Block((qkv, out, up, down), q, kv, (q_grad, k_grad, v_grad), norms, fully, x_grad, y_grad)


def _groups(case: Case) -> Iterator[_Group]:
    if case.level == "linear":
        p = case.projection
        yield _Group((_Layer(p.out_features, p.in_features, p.params, case.method),), True)
        return
    blocks, ends = _structure(case)
    for block in blocks:
        yield from block.groups
    if ends:
        yield ends.head


# FLOPs


def _flops(case: Case) -> tuple[int, int]:
    """Of forward and of backward."""
    m, r = case.tokens, case.rank or 0
    forward = backward = 0
    for group in _groups(case):
        for layer in group.layers:
            product = 2 * m * layer.n * layer.k
            forward += product
            backward += product * (group.x_grad + (layer.trains == "full"))
            if layer.trains == "lora":
                forward += 2 * m * r * (layer.n + layer.k)
                backward += 2 * m * r * (2 * layer.n + layer.k * (1 + group.x_grad))
            elif layer.trains == "paca":
                backward += 2 * m * r * layer.n
    if case.level != "linear":
        for block in _structure(case)[0]:
            product = case.batch * case.seq**2 * block.q  # 2 batch heads seq^2 head_dim, halved
            q, k, v = block.qkv_grad
            forward += 2 * product
            backward += product * ((q or k) + q + k + v)
    return forward, backward


# Bytes


@dataclass(frozen=True)
class _Widths:
    """Bytes of one value."""

    compute: int  # of products' operands, outputs and their gradients
    param: int  # of parameters, their gradients, and the residual stream
    adapter: int  # of A, B or the live columns, and their gradients
    saved: int  # of S = x A^T, and of A and B as backward reads them
    x: int  # of a linear layer's input: at level linear a leaf of the parameters' dtype


def _widths(case: Case) -> _Widths:
    compute = WIDTH[case.precision]
    amp = case.precision.startswith("amp-")
    param = 4 if amp else compute
    adapter = param if case.adapter_dtype is None else WIDTH[case.adapter_dtype]
    return _Widths(compute, param, adapter, compute if amp else adapter, param if case.level == "linear" else compute)


def _forward(case: Case) -> Traffic:
    m, w = case.tokens, _widths(case)
    edge = case.level == "linear"
    fresh = inner = 0
    for group in _groups(case):
        io = m * group.layers[0].k * w.x + sum(m * layer.n for layer in group.layers) * w.compute
        fresh, inner = (fresh + io, inner) if edge else (fresh, inner + io)
        for layer in group.layers:
            fresh += layer.weights * w.param
            if layer.trains == "lora":
                fresh += _adapter(case, layer) * w.adapter
                inner += m * (case.rank or 0) * w.saved
            elif layer.trains == "paca":
                fresh += (case.rank or 0) * INT64
                inner += m * (case.rank or 0) * w.compute
    if edge:
        return Traffic(fresh, 0, inner)
    blocks, ends = _structure(case)
    for block in blocks:
        fresh += block.norms * w.param
        inner += 2 * m * (block.q + block.kv) * w.compute
    hidden = m * blocks[0].groups[0].layers[0].k * w.param
    if ends is None:  # x and y of the block come from outside and go there
        return Traffic(fresh + 2 * hidden, 0, inner)
    rows = ends.positions and case.seq
    fresh += m * INT64 + (rows + min(m, ends.vocabulary) * (not ends.tied)) * ends.width * w.param
    if ends.tied:  # the head's weight was counted with the head: hand its rows on
        inner += min(m, ends.vocabulary) * ends.width * w.param
    fresh += ends.norm * w.param
    return Traffic(fresh, 0, inner + (1 + 2 * len(blocks)) * hidden)


def _adapter(case: Case, layer: _Layer) -> int:
    """Trained values of an adapter."""
    return (case.rank or 0) * (layer.n + (layer.k if layer.trains == "lora" else 0))


def _backward(case: Case) -> Traffic:
    m, r, w = case.tokens, case.rank or 0, _widths(case)
    edge = case.level == "linear"
    fresh = reused = inner = 0
    for group in _groups(case):
        dy = sum(m * layer.n for layer, grad in zip(group.layers, group.y_grad, strict=True) if grad) * w.compute
        dx = m * group.layers[0].k * w.x * group.x_grad
        fresh, inner = (fresh + dy + dx, inner) if edge else (fresh, inner + dy + dx)
        if any(layer.trains in ("full", "lora") for layer in group.layers):
            reused += m * group.layers[0].k * w.compute
        for layer in group.layers:
            reused += layer.n * layer.k * w.compute * group.x_grad
            if layer.trains == "full":
                fresh += layer.weights * w.param
            elif layer.trains == "lora":
                reused += r * (layer.n + layer.k * group.x_grad + m) * w.saved
                fresh += _adapter(case, layer) * w.adapter
            elif layer.trains == "paca":
                reused += m * r * w.compute
                fresh += _adapter(case, layer) * w.adapter
    if edge:
        return Traffic(fresh, reused, inner)
    blocks, ends = _structure(case)
    hidden = m * blocks[0].groups[0].layers[0].k * w.param
    edges = 0
    for block in blocks:
        fresh += block.norms * w.param * block.trains_fully
        edges += hidden * (block.y_grad + block.x_grad)
        q, k, v = block.qkv_grad
        if q or k or v:
            reused += m * (block.q + block.kv) * w.compute * (1 + (q or k))  # q and k; for dP also v and o
            inner += m * (block.q * (1 + q) + block.kv * (k + v)) * w.compute  # dO, and what comes out
    if ends is None:
        return Traffic(fresh + edges, reused, inner)
    if ends.trains:  # gradients of embeddings are dense; a tied one was counted with the head
        embeddings = ends.positions + ends.vocabulary * (not ends.tied)
        fresh += (embeddings * ends.width + ends.norm) * w.param
        reused += m * INT64
        inner += hidden
    return Traffic(fresh, reused, inner + edges)


def _optimizer(case: Case) -> Traffic:
    trained, w = case.trainable_params, _widths(case)
    width = w.param if case.method == "full" else w.adapter
    t = Traffic(fresh=2 * trained * width, reused=2 * trained * width, inner=3 * trained * width)
    if case.method != "paca":
        return t
    layers = sum(layer.trains == "paca" for group in _groups(case) for layer in group.layers)
    return t + Traffic(reused=layers * (case.rank or 0) * INT64, inner=trained * (w.adapter + w.param))
