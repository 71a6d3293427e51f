"""PaCALinear: a linear layer of which a few input columns train in place, as a module."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..modules.plain_linear import forward_replaced
from ..modules.wrapped_linear import WrappedLinear
from ..runtime.checks import check_index_values
from .columns import Columns, watch
from .linear import paca_linear
from .optimizer_hooks import follow

#: Where nn.Module keeps the hooks that its call runs.
_HOOKS = (
    "_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks",
)  # fmt: skip


class PaCALinear(WrappedLinear):
    """y = base(x), where the columns weight[:, index] = alpha / rank * columns train and nothing else does.

    Parameter columns (out_features, rank): the pretrained columns divided by the scale, in `adapter_dtype` (by default
    the base weight's). Buffers: index (rank,) int64, sorted and unique, drawn from a generator seeded by `seed` unless
    given; pretrained (out_features, rank), an exact copy of the pretrained columns. The live columns stay inside the
    base weight: call refresh() once per optimizer step, let refresh_after_step() do it, or have the layer follow().

    The base's hooks are the layer's: those that it has, and those that either gets later, run when the layer is called.

    The state dict has the plain layer's names (weight, with the trained columns inside, and bias), so that a checkpoint
    is one of the plain model too, and beside them columns, index and pretrained, from which training resumes exactly.
    """

    index: Tensor
    pretrained: Tensor

    def __init__(
        self,
        base: nn.Module,
        rank: int,
        alpha: float,
        *,
        index: Tensor | None = None,
        seed: int = 0,
        adapter_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(base, rank, alpha)
        if rank > self.in_features:
            raise ValueError(f"rank is {rank}, expected at most in_features = {self.in_features}")
        if index is None:
            # On the CPU, so that a seed picks the same columns on every device.
            index = torch.randperm(self.in_features, generator=torch.Generator().manual_seed(seed), device="cpu")[:rank]
        if index.shape != (rank,) or index.dtype not in (torch.int32, torch.int64):
            raise ValueError(
                f"index has shape {tuple(index.shape)} and dtype {index.dtype}, expected ({rank},) of torch.int64"
            )
        check_index_values(index, self.in_features)
        device = self.stored_weight.device
        self.register_buffer("index", index.to(device="cpu" if device.type != "meta" else device).long().sort().values)
        self.index = self.index.to(device)
        self.register_buffer("pretrained", self.live())
        # Divided in fp32 or wider, rounded once, so that scale * columns is the pretrained value at an exact scale.
        wide = self.pretrained.to(torch.promote_types(self.pretrained.dtype, torch.float32))
        self.columns = nn.Parameter((wide / self.scale).to(self._dtype_of(adapter_dtype)))
        self.full_name = ""
        self.steps_without_gradient: int | None = 0  # optimizer_hooks counts them; None once it need not
        self.read_raw = False  # whether someone has asked for `weight` where gradients are recorded
        self.base_forward = base.__dict__.get("forward")  # on the instance: None, or one that may be passed by
        self._written: tuple[int] | None = None  # of a layer that follows: (version,) of columns when they were written
        for hooks in _HOOKS:  # the same dictionaries, so that handles still remove
            setattr(self, hooks, getattr(base, hooks))
        self.register_state_dict_pre_hook(_refresh_before_saving)
        self.register_state_dict_post_hook(_save_plain_names)
        self.register_load_state_dict_pre_hook(_load_plain_names)
        self.register_load_state_dict_post_hook(_loaded)

    def forward(self, x: Tensor) -> Tensor:
        # From the dictionaries: nn.Module's own look-up of a parameter or a module costs half a microsecond each.
        base: Any = self._modules["base"]
        columns: Any = self._parameters.get("columns")
        weight: Any = base._parameters.get("weight")
        if not torch.compiler.is_compiling():
            if columns is None:  # a replica of nn.DataParallel: its parameters are attributes, and parts of autograd
                return self._with_other_columns(x, base.weight, self.columns)
            if weight is None or base.__dict__.get("forward") is not self.base_forward:
                self._check_base(base, weight)
            if columns.__class__ is Tensor or torch._C._functorch.peek_interpreter_stack() is not None:
                return self._with_other_columns(x, weight, columns)
            self._catch_up(columns)
        if self.transposed:
            weight = weight.t()
        index: Any = self._buffers["index"]
        bias = base._parameters.get("bias")
        return paca_linear(x, weight, columns, index, scale=self.scale, bias=bias)

    @property
    def weight(self) -> Tensor:
        """The weight as a view of shape (out_features, in_features). Whoever computes with it, in place of a call of
        the layer, gets the right values, but no gradient for the columns: an optimizer's step warns of it."""
        if self._written is not None and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            self.__dict__["read_raw"] = True
        return self._matrix()

    def _matrix(self) -> Tensor:
        stored = self.stored_weight
        return stored.t() if self.transposed else stored

    def _with_other_columns(self, x: Tensor, weight: Tensor, columns: Tensor) -> Tensor:
        """For torch.func: under functional_call columns are a tensor that is not the layer's own; under vmap or grad no
        tensor has an address. The columns are put into a copy of the weight, by operations that all of those know."""
        matrix = weight.t() if self.transposed else weight
        live = matrix.index_copy(1, self.index, (self.scale * columns).to(weight.dtype))
        return F.linear(x, live, self.bias)

    def _check_base(self, base: nn.Module, weight: Tensor | None) -> None:
        """Raises RuntimeError where the base was changed into something that forward would pass by."""
        name = self.full_name or "a PaCALinear"
        if weight is None:
            raise RuntimeError(
                f"{name}: the weight of its base layer is computed by now (parametrize, prune, weight_norm), expected "
                "a plain parameter: take that off, or call merge_paca() first"
            )
        if forward_replaced(base):
            raise RuntimeError(
                f"{name}: the forward of its base layer was replaced after paca(), which PaCA's layer passes by: "
                "replace the forward of the layer itself"
            )
        self.base_forward = base.__dict__.get("forward")

    @property
    def _is_full_backward_hook(self) -> bool | None:
        """The base's own: it says of what kind the backward hooks are that both share."""
        base = self.__dict__.get("_modules", {}).get("base")
        return None if base is None else base._is_full_backward_hook

    @_is_full_backward_hook.setter
    def _is_full_backward_hook(self, value: bool | None) -> None:
        base = self.__dict__.get("_modules", {}).get("base")
        if base is not None and value is not None:  # None is nn.Module's own default, for a layer or a copy
            base._is_full_backward_hook = value

    def live(self) -> Tensor:
        """A copy of weight[:, index] (out_features, rank)."""
        # On the layout as stored: of Conv1D's transposed view it took 7.3 ms, not 0.03 (4096 x 1024, rank 16, CPU).
        taken = self.stored_weight.detach().index_select(0 if self.transposed else 1, self.index)
        return taken.t().contiguous() if self.transposed else taken

    @torch.no_grad()
    def refresh(self) -> None:
        """weight[:, index] <- scale * columns, to be called after every optimizer step."""
        self._matrix().index_copy_(1, self.index, (self.scale * self.columns).to(self.stored_weight.dtype))
        if self._written is not None:
            self._note()

    def follow(self, name: str = "") -> None:
        """From now on the layer refreshes itself: after each step of any torch optimizer that holds its columns, and in
        forward where the columns were changed otherwise: in place, through .data, by another parameter in their place.
        Outside of torch.compile, that is: a compiled forward relies on the optimizer alone. name: for messages."""
        self.full_name = name or self.full_name
        self._note()
        follow(self)

    def _note(self) -> None:
        """The columns, as they are now, are in the weight."""
        columns: Any = self._parameters["columns"]
        watch(columns)
        columns.written = self._written = (columns._version,)

    def _catch_up(self, columns: Any) -> None:
        """Refreshes a layer that follows where its columns were changed by something other than an optimizer's step."""
        written = self._written
        if written is not None and (
            columns.__class__ is not Columns or columns.written is not written or columns._version != written[0]
        ):
            self.refresh()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Moving weight and columns to another device or dtype leaves them what they are to each other."""
        self._catch_up(self._parameters["columns"])
        super()._apply(fn, recurse)
        if self._written is not None:
            self._note()
        return self

    @torch.no_grad()
    def restore(self) -> nn.Module:
        """Puts the pretrained columns back, bit for bit, and returns the base module."""
        self._matrix().index_copy_(1, self.index, self.pretrained)
        return self.base

    def __getstate__(self) -> Any:
        """For copies and pickles, which hold no versions."""
        self._catch_up(self.columns)
        return super().__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy of a layer that follows, follows."""
        super().__setstate__(state)
        if self._written is not None:
            self.follow()


def _refresh_before_saving(layer: nn.Module, *_: Any) -> None:
    assert isinstance(layer, PaCALinear)
    layer._catch_up(layer.columns)


def _save_plain_names(_layer: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    for name in ("weight", "bias"):
        if f"{prefix}base.{name}" in state:
            state[prefix + name] = state.pop(f"{prefix}base.{name}")


def _load_plain_names(
    _layer: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any, _strict: bool, *lists: list[str]
) -> None:
    """Part of a layer's tensors would leave the live columns, their masters and the way back at odds: refused."""
    parts = ("weight", "columns", "index", "pretrained")
    lacking = [name for name in parts if prefix + name not in state]
    if 0 < len(lacking) < len(parts):
        found = ", ".join(name for name in parts if name not in lacking)
        lists[-1].append(
            f"{prefix or 'the layer'} has {found} without {', '.join(lacking)}: a model under paca() loads checkpoints "
            "of models under paca(); load a plain one before paca(), and one of save_paca() with load_paca()"
        )
    for name in ("weight", "bias"):
        if prefix + name in state:
            state[f"{prefix}base.{name}"] = state.pop(prefix + name)


def _loaded(layer: nn.Module, _incompatible: Any) -> None:
    """What was loaded is fresh: weight and columns were saved together."""
    assert isinstance(layer, PaCALinear)
    if layer._written is not None:
        layer._note()


def refresh_after_step(optimizer: torch.optim.Optimizer, model: nn.Module) -> Any:
    """Refreshes every PaCALinear of `model` after each optimizer.step(); returns the handle that removes the hook."""
    layers = [module for module in model.modules() if isinstance(module, PaCALinear)]

    def refresh(*_: Any) -> None:
        for layer in layers:
            layer.refresh()

    return optimizer.register_step_post_hook(refresh)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Optimizer groups of the trainable parameters, with no decay on PaCA's columns.

    Decay pulls a parameter to zero. For an adapter that is the pretrained model; for columns, which hold pretrained
    weights, it is not.
    """
    # By their names, since a layer over a quantised base may be of another class.
    columns = {id(m.columns) for m in model.modules() if hasattr(m, "columns") and hasattr(m, "index")}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if id(p) not in columns], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) in columns], "weight_decay": 0.0},
    ]
