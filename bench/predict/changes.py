"""A trace as others ran the model: with gradient checkpointing, attention that is not fused, without loss or head."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from bench.case import Case
from bench.predict.known_models import Change
from bench.predict.ops import Op, Trace

_LOSS = ("log_softmax", "nll_loss", "cross_entropy")


def changed(trace: Trace, case: Case, changes: Sequence[Change]) -> Trace:
    """The operators with these changes, in this order."""
    for change in changes:
        trace = Trace({**trace.phases, **_CHANGES[change](trace, case)})
    return trace


def _recompute(trace: Trace, case: Case) -> dict[str, tuple[Op, ...]]:
    """Each decoder block's forward once more within the backward, as Hugging Face's gradient checkpointing does. Where
    in the backward does not matter to the sum."""
    again = tuple(op for op in trace.phases["forward"] if op.cause != "outside")
    return {"backward": again + trace.phases["backward"]}


def _without(drop: Callable[[Op], bool]) -> Callable[[Trace, Case], dict[str, tuple[Op, ...]]]:
    return lambda trace, case: {"forward": tuple(op for op in trace.phases["forward"] if not drop(op))}


def _plain_attention(trace: Trace, case: Case) -> dict[str, tuple[Op, ...]]:
    forward, backward = plain_attention(case)
    return {
        phase: tuple(
            part for op in ops for part in ((op,) if op.kind != "attention" else backward if op.backward else forward)
        )
        for phase, ops in trace.phases.items()
    }


def plain_attention(case: Case) -> tuple[list[Op], list[Op]]:
    """Forward and backward of softmax(mask(Q K^T / sqrt(d))) V one operator after the other, as the eager attention of
    GPT-2, BERT and OPT in transformers has it, with dropout where the model has one.

    S has batch x heads x seq x seq elements. Bytes: each operator reads and writes each of its tensors once; a mask of
    dropout has one byte an element.
    """
    assert case.shape is not None
    config = case.shape.config
    heads = int(config.get("n_head") or config["num_attention_heads"])
    d, s, all_heads = case.shape.hidden_size // heads, case.seq, case.batch * heads
    width = 4 if case.precision == "fp32" else 2
    size = float(all_heads * s * s)
    product = Op("aten::bmm", "attention", "gemm", width=width, fp32=width == 4)
    flops = 2 * size * d
    scores = replace(product, sizes=(s, s, d, all_heads), flops=flops)  # Q K^T, and dP = dO V^T
    mixed = replace(product, sizes=(s, d, s, all_heads), flops=flops)  # P V, and dV, dQ, dK

    def pointwise(name: str, kind: str, tensors: float) -> Op:
        return Op(name, "attention", kind, bytes=tensors * width * size)  # type: ignore[arg-type]

    scale, mask = pointwise("aten::div", "elementwise", 2), pointwise("aten::where", "elementwise", 2)
    softmax = pointwise("aten::_softmax", "softmax", 2)
    forward, backward = [scores, scale, mask, softmax], [mixed, scores]
    if case.shape.dropout:
        by_mask = 2 + 1 / width
        forward.append(pointwise("aten::native_dropout", "random", by_mask))
        backward.append(pointwise("aten::native_dropout_backward", "elementwise", by_mask))
    softmax_backward = pointwise("aten::_softmax_backward_data", "softmax", 3)
    return [*forward, mixed], [*backward, softmax_backward, mask, scale, mixed, mixed]


_CHANGES: dict[Change, Callable[[Trace, Case], dict[str, tuple[Op, ...]]]] = {
    "recompute": _recompute,
    "plain attention": _plain_attention,
    "no loss": _without(lambda op: any(word in op.name for word in _LOSS)),
    "no head": _without(lambda op: op.cause == "outside" and op.kind == "gemm"),
}
