"""From an operator as torch's dispatcher calls it to an Op: the kind of work, its sizes, its bytes."""

from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from bench.causes.attribution import Role
from bench.causes.roles import GATHERS, PRODUCTS
from bench.errors import UserError
from bench.predict.boards import MemoryKind
from bench.predict.ops import Op

# By the beginning of the name; the first that fits.
_BY_NAME: tuple[tuple[str, MemoryKind], ...] = (
    ("native_dropout_backward", "elementwise"),
    ("native_dropout", "random"),
    ("bernoulli", "random"),
    ("rand", "random"),
    ("native_layer_norm", "norm"),
    ("native_group_norm", "norm"),
    ("_fused_rms_norm", "norm"),
    ("_softmax", "softmax"),
    ("_log_softmax", "softmax"),
    ("_safe_softmax", "softmax"),
    ("logsumexp", "softmax"),
    ("nll_loss_forward", "gather"),
    ("embedding", "gather"),
    ("sum", "reduction"),
    ("mean", "reduction"),
    ("amax", "reduction"),
    ("prod", "reduction"),
    ("linalg_vector_norm", "reduction"),
    ("cumsum", "reduction"),
    ("clone", "copy"),
    ("copy", "copy"),
    ("cat", "copy"),
    ("stack", "copy"),
    ("repeat", "copy"),
    ("constant_pad_nd", "copy"),
    ("slice_backward", "copy"),
    ("slice_scatter", "copy"),
    ("split_with_sizes_copy", "copy"),
)
# What is written and not read, though it stands among the arguments.
_OVERWRITES = ("copy", "zero", "fill", "bernoulli", "uniform", "normal", "random")
# Only what they pick is read of the first argument.
_PICK = ("embedding", "index", "index_select", "gather", "take", "nll_loss_forward")


def ops_of(role: Role, func: Any, args: Any, kwargs: Any, made: list[Tensor]) -> list[Op]:
    """What an operator adds to a trace: mostly one Op; none where it launches nothing.

    role: as bench.causes found it. made: the tensors that came out.
    """
    schema = func._schema
    name = schema.name.partition("::")[2].removesuffix("_")
    if role.light or not (made or schema.is_mutable):
        return []
    if role.name.startswith("lorabench::"):
        return _ours(name, role, args)
    if name in PRODUCTS:
        return [_gemm(role, args)]
    if "grouped_mm" in name or "scaled_mm" in name or "convolution" in name:
        raise UserError(f"{role.name}: such products, as of a mixture of experts, are not predicted.")
    moved = _moved(name, func, args, kwargs, made)
    if "attention" in name:
        # Half of the products lie above the diagonal, and causal kernels leave them out.
        return [Op(role.name, role.cause, "attention", width=made[0].element_size(), bytes=moved, flops=role.flops / 2,
                   backward="backward" in name)]  # fmt: skip
    if name == "embedding_dense_backward":  # zeros of the weight's size, and rows of dY added to some of them
        rows = 2 * _size(args[0]) + _size(args[1])
        zeros = Op("aten::zero_", role.cause, "elementwise", bytes=sum(map(_size, made)))
        return [zeros, Op(role.name, role.cause, "gather", bytes=rows)]
    kind = _kind(name, _tensors((args, kwargs)), made)
    return [Op(role.name, role.cause, kind, bytes=moved, flops=role.flops)]


def _ours(name: Any, role: Role, args: Any) -> list[Op]:
    """This project's kernels, which a trace sees as the custom ops of kernels/lora and kernels/paca."""
    if name in ("lora_forward", "lora_backward"):
        x = args[0]  # of backward dY, which has as many rows, and x's dtype
        weight, a = args[1:3] if name == "lora_forward" else args[2:4]
        p = args[7 if name == "lora_forward" else 8]
        m, (n, k) = x.shape[0], weight.shape
        width = x.element_size()
        moved = width * (m * k + n * k + m * n + a.shape[0] * (m + n + k))
        flops = 2.0 * m * n * k
        sizes = (m, n, k, a.shape[0])
        return [Op(role.name, "fused", name, sizes, width, _in_fp32(x), bytes=moved, flops=flops, dropout=p > 0)]
    if name == "paca_product":
        dy, x_live = args[:2]
        (m, n), rank, width = dy.shape, x_live.shape[1], dy.element_size()
        moved = width * (m * n + m * rank + n * rank)
        return [Op(role.name, "branch", name, (m, n, rank), width, _in_fp32(dy), moved, 2.0 * m * n * rank)]
    x, weight, index = args[0], args[1], args[3]  # paca_forward: a GEMM, and a gather beside it
    (m, k), n, width = x.shape, weight.shape[0], x.element_size()
    gathered = 2 * width * m * index.shape[0] + index.numel() * index.element_size()
    gemm = Op("aten::addmm", "base_forward", "gemm", (m, n, k, 1), width, _in_fp32(x),
              width * (m * k + n * k + m * n), 2.0 * m * n * k)  # fmt: skip
    return [gemm, Op("aten::index_select", "gathers", "gather", bytes=gathered)]


def _gemm(role: Role, args: Any) -> Op:
    a, b = [t for t in args if isinstance(t, Tensor)][-2:]
    m, n, k = (1 if a.dim() == 1 else a.shape[-2]), (1 if b.dim() == 1 else b.shape[-1]), a.shape[-1]
    batch, width = a.shape[0] if a.dim() == 3 else 1, a.element_size()
    moved = width * batch * (m * k + k * n + m * n)
    return Op(role.name, role.cause, "gemm", (m, n, k, batch), width, _in_fp32(a), moved, role.flops)


def _in_fp32(t: Tensor) -> bool:
    """Whether a product of it runs on the ordinary cores, as torch's default has it."""
    return t.dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest"


def _kind(name: str, read: list[Tensor], made: list[Tensor]) -> MemoryKind:
    for start, kind in _BY_NAME:
        if name.startswith(start):
            casts = kind == "copy" and len({t.dtype for t in (*read, *made)}) > 1
            return "cast" if casts else kind
    if name == "_to_copy":
        return "cast" if made[0].dtype != read[0].dtype else "copy"
    if name in GATHERS:
        return "gather"
    sizes = {t.numel() for t in read if t.numel() > 1}
    return "broadcast" if len(sizes) > 1 and not name.startswith("_fused") else "elementwise"


def _moved(name: str, func: Any, args: Any, kwargs: Any, made: list[Tensor]) -> float:
    """Bytes read and written. What is expanded is read once; of what is only picked from, what is picked."""
    read = written = 0.0
    given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | dict(kwargs)
    changed: set[int] = set()
    for argument in func._schema.arguments:
        tensors = [t for t in tree_leaves(given.get(argument.name)) if isinstance(t, Tensor)]
        size = sum(map(_size, tensors))
        # An optimizer's kernel writes gradients only to undo a GradScaler, and there is none.
        if argument.alias_info is not None and argument.alias_info.is_write and argument.name != "grads":
            changed |= {id(t) for t in tensors}
            written += size
            size *= not name.startswith(_OVERWRITES)
        read += size
    fresh = sum(_size(t) for t in made if id(t) not in changed)
    if name.endswith("_like") or name == "nll_loss_backward":
        read = 0.0
    if name.startswith(_PICK) and not written:  # all of what is picked is read, and its places
        read = fresh + sum(_size(t) for t in _tensors((args, kwargs)) if not t.is_floating_point())
    elif name.startswith("index") and written:  # as much is read as is written over
        sources = _tensors((args, kwargs))[1:]
        return 2 * sum(_size(t) for t in sources if t.is_floating_point())
    return read + written + fresh


def _tensors(values: Any) -> list[Tensor]:
    return [t for t in tree_leaves(values) if isinstance(t, Tensor)]


def _size(t: Tensor) -> float:
    if t.layout is not torch.strided:
        return float(t.numel() * t.element_size())
    return t.element_size() * float(prod(d for d, stride in zip(t.shape, t.stride(), strict=True) if stride))
