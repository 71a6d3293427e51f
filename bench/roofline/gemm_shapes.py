"""The GEMM shapes of a case: which layers there are, what trains, and what requires grad. Without torch.

Which gradients there are follows autograd: nothing is computed for a tensor below which nothing trains. So the blocks
below the lowest that trains have no backward at all, while frozen ones above it (every-Nth, lisa-G) hand dX down; at
level model LoRA's and PaCA's lowest adapted layers need no dX; a norm in front of a layer trains under full
fine-tuning, and so asks for that layer's dX even in the lowest block. Under lisa-G all blocks carry adapters, of which
a stage's train; under full fine-tuning embeddings and head train in every stage.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from bench.case import Case
from bench.case.architectures import CLOSED_FORMS, is_tied, vocabulary_of
from bench.case.schema import BASELINE
from bench.case.shapes import LLAMA_LIKE, ModelShape, trains_ends
from bench.methods.method import Linear, Method
from bench.methods.registry import method_of, methods

# Names of a block's projections, in the order in which they are called; an architecture has some of each line.
_PARTS = (
    ("attn.c_attn", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.qkv_proj"),
    ("attn.c_proj", "self_attn.o_proj"),
    ("mlp.c_fc", "mlp.gate_proj", "mlp.up_proj", "mlp.gate_up_proj"),
    ("mlp.c_proj", "mlp.down_proj"),
)


@dataclass(frozen=True)
class Layer(Linear):
    """One linear layer, and the method by which it trains; None where it is frozen.

    rests: the method whose adapter it carries while other blocks train; mostly None.
    """

    trains: Method | None
    rests: Method | None = None

    @property
    def carries(self) -> Method | None:
        """The method whose adapter it has, or by which it trains itself."""
        return self.trains or self.rests


@dataclass(frozen=True)
class Group:
    """Linear layers that read the same input: q, k, v; gate, up."""

    layers: tuple[Layer, ...]
    x_grad: bool  # the input requires grad

    @property
    def k(self) -> int:
        return self.layers[0].k

    @property
    def y_grad(self) -> list[bool]:
        """Whether each layer's output requires grad."""
        return [self.x_grad or layer.trains is not None for layer in self.layers]


@dataclass(frozen=True)
class Block:
    """A decoder block: x + attention(norm(x)), and the same with the MLP."""

    groups: tuple[Group, ...]
    q: int  # width of q and of the attention's output: heads x head_dim
    kv: int  # width of k and of v
    qkv_grad: tuple[bool, bool, bool]
    norms: int  # values in the norms
    norms_train: bool
    x_grad: bool
    y_grad: bool


@dataclass(frozen=True)
class Ends:
    """What lies around the blocks of a model: embeddings, final norm, head."""

    head: Group
    vocabulary: int
    positions: int  # learned ones
    tied: bool
    norm: int  # values in the final norm
    train: bool


@dataclass(frozen=True)
class GemmShapes:
    """All of a case. At level linear one group, no block; ends only at level model."""

    groups: tuple[Group, ...]
    blocks: tuple[Block, ...] = ()
    ends: Ends | None = None

    def layers(self) -> Iterator[tuple[Group, Layer]]:
        return ((group, layer) for group in self.groups for layer in group.layers)


def cycle_of(case: Case) -> list[tuple[GemmShapes, int]] | None:
    """The shapes of a case's stages (see Case.stages), and how many stages are like each; None as for gemm_shapes.

    Blocks are alike, so stages are where as many blocks train and gradients go as far down.
    """
    alike: dict[tuple[int, int], list[int]] = {}
    for i, stage in enumerate(case.stages):
        alike.setdefault((len(stage), min(stage, default=0)), []).append(i)
    found = [(gemm_shapes(case, stages[0]), len(stages)) for stages in alike.values()]
    return [(shapes, n) for shapes, n in found if shapes is not None] or None


def gemm_shapes(case: Case, stage: int = 0) -> GemmShapes | None:
    """The shapes in a stage (see Case.stages). None at levels block and model of an architecture that is neither
    GPT-2's nor built as Llama's."""
    method = method_of(case)
    if case.level == "linear":
        layers = (Layer(p.out_features, p.in_features, p.params, method) for p in case.projections)
        return GemmShapes((Group(tuple(layers), x_grad=True),))
    shape = case.shape
    assert shape is not None
    if shape.model_type not in (*CLOSED_FORMS, *LLAMA_LIKE):
        return None
    everything = not method.adapts and case.level == "model" and trains_ends(case.trainable_layers)
    grad = case.level == "block" or everything  # an inner block's input requires grad, and so do trained embeddings
    trained, adapted = case.stages[stage], case.adapted
    blocks: list[Block] = []
    kinds: dict[tuple[bool, bool, bool], Block] = {}
    for i in range(case.blocks):
        kind = i in trained, i in adapted, grad
        if kind not in kinds:
            kinds[kind] = _block(case, shape, *kind)
        blocks.append(kinds[kind])
        grad = blocks[-1].y_grad
    groups = tuple(group for block in blocks for group in block.groups)
    if case.level == "block":
        return GemmShapes(groups, tuple(blocks))
    ends = _ends(shape, grad, everything)
    return None if ends is None else GemmShapes((*groups, ends.head), tuple(blocks), ends)


def widths_of(shape: ModelShape) -> tuple[int, int, int]:
    """(q, k and v each, the MLP's inner width) of a block that has a closed form."""
    n = {p.name: p.out_features for p in shape.projections}
    k = {p.name: p.in_features for p in shape.projections}
    reads, (out,), _, (down,) = _parts(shape)
    return k[out], (sum(n[name] for name in reads) - k[out]) // 2, k[down]


def _parts(shape: ModelShape) -> list[list[str]]:
    names = {p.name for p in shape.projections}
    return [[name for name in part if name in names] for part in _PARTS]


def _block(case: Case, shape: ModelShape, trains: bool, adapted: bool, x_grad: bool) -> Block:
    method = method_of(case)
    full = trains and not method.adapts
    targets = {p.name for p in case.target_projections} if adapted and method.adapts else set()
    by_name = {p.name: p for p in shape.projections}

    def group(grad: bool, *names: str) -> Group:
        found = []
        for name in names:
            p = by_name[name]
            how = method if full or name in targets else None
            found.append(Layer(p.out_features, p.in_features, p.params, *((how, None) if trains else (None, how))))
        return Group(tuple(found), grad)

    reads, (out_name,), ups, (down_name,) = _parts(shape)
    qkv = group(x_grad or full, *reads)
    q_grad, k_grad, v_grad = qkv.y_grad * (3 // len(reads))
    out = group(any(qkv.y_grad), out_name)
    up = group(x_grad or full or any(out.y_grad), *ups)
    down = group(any(up.y_grad), down_name)
    q, kv, _ = widths_of(shape)
    norms = shape.block_params - sum(p.params for p in shape.projections)
    y_grad = x_grad or any(out.y_grad) or any(down.y_grad)
    return Block((qkv, out, up, down), q, kv, (q_grad, k_grad, v_grad), norms, full, x_grad, y_grad)


def _ends(shape: ModelShape, grad: bool, train: bool) -> Ends | None:
    gpt2 = shape.model_type == "gpt2"
    vocabulary = vocabulary_of(shape.config)
    if vocabulary is None:
        return None
    width = shape.hidden_size
    tied = is_tied(shape.config)
    positions = shape.max_positions if gpt2 else 0
    norm = shape.outside_params - (vocabulary * (1 if tied else 2) + positions) * width
    head = Layer(vocabulary, width, vocabulary * width, methods()[BASELINE] if train else None)
    return Ends(Group((head,), grad), vocabulary, positions, tied, norm, train)
