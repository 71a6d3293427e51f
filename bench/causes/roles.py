"""Which cause each operator of a work serves: from the module that runs, the operands' roles, and autograd's node.

One untimed call under a dispatch mode, which sees every operator of forward and backward with its tensors. Names of
kernels say nothing here: a product is the base's because it reads the base weight.
"""

from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from bench.causes.attribution import Role
from bench.methods.registry import method_of
from bench.models.work import Work
from kernels.modules.blocks import decoder_blocks

LINEAR, ATTENTION, BLOCK, OUTSIDE = "linear", "attention", "norms", "outside"
GATHERS = ("index", "index_select", "gather", "take", "index_copy", "index_put", "index_add", "scatter")
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "matmul", "linear", "mkldnn_linear", "einsum")
SUMS = ("add", "sub")
ALLOCATES = ("empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided")


class Roles(TorchDispatchMode):
    """Notes a Role for every operator that runs inside of it. `phase` is set by whoever runs the work."""

    sees_fused_layers = True  # accelerated PEFT layers run as without it

    def __init__(self, work: Work) -> None:
        super().__init__()
        self.phase = ""  # outside of the phases nothing is noted
        self.found: list[Role] = []
        self._adapts = method_of(work.case).adapts
        self._kinds = {id(m): kind for m, kind in _kinds(work)}
        self._tags: dict[int, str] = {}  # role of a tensor, by its storage
        self._sizes: dict[int, int] = {}  # values of a base weight, by the same
        for path in _linear_paths(work):
            self._tag_layer(work.model.get_submodule(path))
        self._gathers = "index" in self._tags.values()
        self._running: list[str] = []  # kinds of the modules that run, the innermost last
        # Autograd numbers its nodes as it makes them: which kind made a node follows from the first number after each
        # change of module.
        self._firsts, self._makers = [0], [OUTSIDE]

    def _tag_layer(self, layer: nn.Module) -> None:
        """The weight is the largest of what is not an adapter, and so is what was made of it, as a merged one."""
        size = max((p.numel() for p in layer.parameters() if not (self._adapts and p.requires_grad)), default=0)
        for t in (*layer.parameters(), *layer.buffers()):
            at = _at(t)
            if t.numel() == size and not (self._adapts and t.requires_grad):
                self._tags[at], self._sizes[at] = "weight", t.numel()
            elif not t.is_floating_point():
                self._tags[at] = "index"
            elif t.dim() == 1:
                self._tags[at] = "bias"
            else:
                self._tags[at] = "adapter"

    def __enter__(self) -> Self:
        # As torch.fx does it, and not by hooks: layers that see hooks on them compute in another way.
        plain: Callable[..., Any] = nn.Module.__call__

        def call(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            around = self._running[-1] if self._running else OUTSIDE
            self._running.append(self._kinds.get(id(module), around))
            self._changed()
            try:
                return plain(module, *args, **kwargs)
            finally:
                self._running.pop()
                self._changed()

        setattr(nn.Module, "__call__", call)  # noqa: B010
        self._restore = lambda: setattr(nn.Module, "__call__", plain)
        return super().__enter__()

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        self._restore()

    def _changed(self) -> None:
        self._firsts.append(torch.autograd._get_sequence_nr())
        self._makers.append(self._running[-1] if self._running else OUTSIDE)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        read = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        made = [t for t in tree_leaves(out) if isinstance(t, Tensor)]
        name = func._schema.name.removesuffix("_").partition("::")[2]
        ours = {_at(t) for t in read}
        fresh = [t for t in made if _at(t) not in ours]
        cause = self._cause(name, func, read, made, fresh)
        is_view = bool(made) and not fresh and not func._schema.is_mutable
        light = is_view or name in ALLOCATES
        moved = 0 if light else sum(t.numel() * t.element_size() for t in (*read, *made))
        if self.phase and name != "detach":  # no work, and here more of them than the profiler sees
            flops = _flops(name, args, kwargs, out)
            self.note(Role(func._schema.name, self.phase, cause, moved, flops, light), func, args, kwargs, made)
        return out

    def note(self, role: Role, func: Any, args: Any, kwargs: Any, made: list[Tensor]) -> None:
        """What becomes of an operator's role. func: what the dispatcher called, with these arguments; made: tensors."""
        self.found.append(role)

    def _kind(self) -> tuple[str, bool]:
        """(kind of module that runs or whose backward runs, whether a gradient is being added into .grad)."""
        node = torch._C._current_autograd_node()
        if node is None:
            return self._running[-1] if self._running else OUTSIDE, False
        if node.name() == "torch::autograd::AccumulateGrad":
            return OUTSIDE, True
        return self._makers[bisect_right(self._firsts, node._sequence_nr()) - 1], False

    def _cause(self, name: str, func: Any, read: list[Tensor], made: list[Tensor], fresh: list[Tensor]) -> str:
        kind, sums = self._kind()
        if sums:
            return "accumulation"
        if _casts(name, read, made):
            cause, tag = "casts", self._tag(read[-1] if name == "copy" else read[0])
        elif kind != LINEAR:
            cause, tag = "attention" if "attention" in name else kind, None
        else:
            cause, tag = self._within_linear(name, func, read, made, fresh)
        for t in fresh:
            self._retag(t, tag)
        if name == "copy" and tag is not None:
            self._retag(read[0], tag)
        if cause == "dropout" and fresh and name in ("bernoulli", "native_dropout"):
            self._retag(fresh[-1], "mask")
        elif name == "bernoulli":
            self._retag(read[0], "mask")
        return cause

    def _within_linear(
        self, name: str, func: Any, read: list[Tensor], made: list[Tensor], fresh: list[Tensor]
    ) -> tuple[str, str | None]:
        """Cause of an operator in a linear layer, adapters included, and the role of what it makes."""
        tags = [self._tag(t) for t in read]
        forward = self.phase == "forward"
        base = "base_forward" if forward else "base_dx" if self._adapts else "base_dw"
        mine = "branch" if "branch" in tags or "adapter" in tags else None
        if "dropout" in name or name == "bernoulli" or "mask" in tags:
            return "dropout", "branch" if not forward else None
        if made and not fresh and not func._schema.is_mutable:  # a view
            return ("base_forward" if forward else "base_dx") if "weight" in tags else mine or base, None
        if name in PRODUCTS:
            return self._product(tags, read, base)
        if name in GATHERS:
            return ("refresh" if func._schema.is_mutable and tags[0] == "weight" else "gathers"), None
        if forward and (not self._adapts or "bias" in tags):
            return base, None
        if name in SUMS and len(read) > 1:  # backward: of gradients; those of siblings add up under every method
            if "branch" not in tags:
                return ("elementwise" if forward else BLOCK), None
            return "elementwise", "branch" if set(tags) == {"branch"} else None
        if not self._adapts:
            return base, None
        if self._gathers and "adapter" in tags:  # scales the columns that are about to be copied into the weight
            return "refresh", None
        if name in ("clone", *ALLOCATES):
            return mine or base, tags[0] if tags else None
        return "elementwise", mine

    def _product(self, tags: list[str | None], read: list[Tensor], base: str) -> tuple[str, str | None]:
        forward = self.phase == "forward"
        weights = [t for t, tag in zip(read, tags, strict=True) if tag == "weight"]
        if weights:
            whole = any(t.numel() > self._sizes.get(_at(t), t.numel()) for t in weights)
            return ("fused" if whole else "base_forward" if forward else "base_dx"), None
        if "adapter" in tags or "branch" in tags:
            return "branch", "branch"
        return (base, None) if not self._adapts else ("branch", "branch")

    def _tag(self, t: Tensor) -> str | None:
        return self._tags.get(_at(t))

    def _retag(self, t: Tensor, tag: str | None) -> None:
        """Freed memory comes again: what is new loses the role of what lay there."""
        if tag is None:
            self._tags.pop(_at(t), None)
            self._sizes.pop(_at(t), None)
        else:
            self._tags[_at(t)] = tag
            if tag == "weight":
                self._sizes[_at(t)] = t.numel()


def _at(t: Tensor) -> int:
    return t.untyped_storage()._cdata  # fake tensors have one, too


def _casts(name: str, read: list[Tensor], made: list[Tensor]) -> bool:
    if name == "copy":
        return len(read) > 1 and read[0].dtype != read[1].dtype
    return name == "_to_copy" and made[0].dtype != read[0].dtype


def _flops(name: str, args: Any, kwargs: Any, out: Any) -> float:
    """As torch's own counter has it; it does not know the CPU's attention by name, nor what is done in place."""
    packet = getattr(torch.ops.aten, name.replace("_for_cpu", ""), None)
    count = flop_registry.get(packet)
    kwargs = {k: v for k, v in kwargs.items() if k != "out"}
    return 0.0 if count is None else float(count(*args, **kwargs, out_val=out))


def _linear_paths(work: Work) -> list[str]:
    """The linear layers of the blocks, whether the case adapts them or not, by their names in the model."""
    case = work.case
    if case.level == "linear":
        return list(case.linear_layers)
    assert case.shape is not None
    return [f"{name}.{p.name}" for name, _ in _blocks(work) for p in case.shape.projections]


def _blocks(work: Work) -> list[tuple[str, nn.Module]]:
    if work.case.level == "block":
        return [("block", work.model.get_submodule("block"))]
    name, blocks = decoder_blocks(work.model)
    return [(f"{name}.{i}", block) for i, block in enumerate(blocks)]


def _kinds(work: Work) -> list[tuple[nn.Module, str]]:
    """What the modules are; one that is not named is what the module around it is. Within a linear layer, everything is
    linear."""
    if work.case.level == "linear":
        return [(m, LINEAR) for m in work.model.get_submodule("layer").modules()]
    found = [(m, ATTENTION) for m in work.model.modules() if "Rotary" in type(m).__name__]
    for _, block in _blocks(work):
        found.append((block, BLOCK))
        for m in block.modules():
            kind = type(m).__name__
            if "Attention" in kind:
                found.append((m, ATTENTION))
            elif "Norm" in kind or isinstance(m, nn.Dropout):
                found.append((m, BLOCK))
    for path in _linear_paths(work):
        found += [(m, LINEAR) for m in work.model.get_submodule(path).modules()]
    return found
