"""PaCALinear: a linear layer of which a few input columns train in place, as a module."""

from typing import Any

import torch
from torch import Tensor, nn

from ..checks import check_index_values
from ..layers import WrappedLinear
from .linear import paca_linear


class PaCALinear(WrappedLinear):
    """y = base(x), where the columns weight[:, index] = alpha / rank * columns train and nothing else does.

    Parameter columns (out_features, rank): the pretrained columns divided by the scale, in `adapter_dtype` (by default
    the base weight's). Buffers: index (rank,) int64, sorted and unique, drawn from a generator seeded by `seed` unless
    given; pretrained (out_features, rank), an exact copy of the pretrained columns. The live columns stay inside the
    base weight: call refresh() once per optimizer step, or let refresh_after_step() do it.
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
        live = self.weight.detach().index_select(1, self.index)
        self.register_buffer("pretrained", live.clone())
        # Divided in fp32 and rounded once, so that scale * columns is the pretrained value where the scale is exact.
        self.columns = nn.Parameter((live.float() / self.scale).to(self._dtype_of(adapter_dtype)))

    def forward(self, x: Tensor) -> Tensor:
        return paca_linear(x, self.weight, self.columns, self.index, scale=self.scale, bias=self.bias)

    @torch.no_grad()
    def refresh(self) -> None:
        """weight[:, index] <- scale * columns, to be called after every optimizer step."""
        self.weight.index_copy_(1, self.index, (self.scale * self.columns).to(self.stored_weight.dtype))

    @torch.no_grad()
    def restore(self) -> nn.Module:
        """Puts the pretrained columns back, bit for bit, and returns the base module."""
        self.weight.index_copy_(1, self.index, self.pretrained)
        return self.base


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
