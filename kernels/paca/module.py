"""PaCALinear: a linear layer of which a few input columns train in place, as a module."""

from typing import Any

import torch
from torch import Tensor, nn

from ..modules.wrapped_linear import WrappedLinear
from ..runtime.checks import check_index_values
from .linear import paca_linear
from .optimizer_hooks import follow


class PaCALinear(WrappedLinear):
    """y = base(x), where the columns weight[:, index] = alpha / rank * columns train and nothing else does.

    Parameter columns (out_features, rank): the pretrained columns divided by the scale, in `adapter_dtype` (by default
    the base weight's). Buffers: index (rank,) int64, sorted and unique, drawn from a generator seeded by `seed` unless
    given; pretrained (out_features, rank), an exact copy of the pretrained columns. The live columns stay inside the
    base weight: call refresh() once per optimizer step, let refresh_after_step() do it, or have the layer follow().

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
        self._refreshed: int | None = None  # the version of columns at the last refresh, of a layer that follows
        self.register_state_dict_pre_hook(_refresh_before_saving)
        self.register_state_dict_post_hook(_save_plain_names)
        self.register_load_state_dict_pre_hook(_load_plain_names)
        self.register_load_state_dict_post_hook(_loaded)

    def forward(self, x: Tensor) -> Tensor:
        columns = self.columns  # once: a look-up of a parameter is a good part of what a layer costs the host
        if not torch.compiler.is_compiling():
            self._catch_up(columns)
        return paca_linear(x, self.weight, columns, self.index, scale=self.scale, bias=self.bias)

    def live(self) -> Tensor:
        """A copy of weight[:, index] (out_features, rank)."""
        # On the layout as stored: of Conv1D's transposed view it took 7.3 ms, not 0.03 (4096 x 1024, rank 16, CPU).
        taken = self.stored_weight.detach().index_select(0 if self.transposed else 1, self.index)
        return taken.t().contiguous() if self.transposed else taken

    @torch.no_grad()
    def refresh(self) -> None:
        """weight[:, index] <- scale * columns, to be called after every optimizer step."""
        self.weight.index_copy_(1, self.index, (self.scale * self.columns).to(self.stored_weight.dtype))
        if self._refreshed is not None:
            self._refreshed = self.columns._version

    def follow(self) -> None:
        """From now on the layer refreshes itself: after each step of any torch optimizer that holds its columns, and in
        forward where the columns were changed in place otherwise. Outside of torch.compile, that is: a compiled forward
        relies on the optimizer alone."""
        self._refreshed = self.columns._version
        follow(self)

    def _catch_up(self, columns: Tensor) -> None:
        """Refreshes a layer that follows where its columns were changed by something other than an optimizer's step."""
        if self._refreshed is not None and self._refreshed != columns._version:
            self.refresh()

    @torch.no_grad()
    def restore(self) -> nn.Module:
        """Puts the pretrained columns back, bit for bit, and returns the base module."""
        self.weight.index_copy_(1, self.index, self.pretrained)
        return self.base

    def __getstate__(self) -> Any:
        """For copies and pickles, which hold no versions."""
        self._catch_up(self.columns)
        return super().__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy of a layer that follows, follows."""
        super().__setstate__(state)
        if self._refreshed is not None:
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
    if layer._refreshed is not None:
        layer._refreshed = layer.columns._version


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
    columns = {id(module.columns) for module in model.modules() if isinstance(module, PaCALinear)}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if id(p) not in columns], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) in columns], "weight_decay": 0.0},
    ]
