"""paca, impl eager: one ordinary product forward, a skinny one backward. The live columns stay inside the weight."""

import hashlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bench.case import Case
from bench.methods.places import Trained, adapt, adapter_dtype
from kernels import PaCALinear


class _LiveColumns(torch.autograd.Function):
    """y = x W^T + b; keeps x[:, index] and W for backward, never x."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, columns: Tensor, index: Tensor, scale: float
    ) -> Tensor:
        ctx.scale, ctx.columns_dtype = scale, columns.dtype
        x_live = x.index_select(-1, index) if ctx.needs_input_grad[3] else None
        ctx.save_for_backward(weight if ctx.needs_input_grad[0] else None, x_live)
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        weight, x_live = ctx.saved_tensors
        grad_x = grad_columns = None
        if weight is not None:
            grad_x = grad_y @ weight
        if x_live is not None:
            skinny = grad_y.reshape(-1, grad_y.shape[-1]).t() @ x_live.reshape(-1, x_live.shape[-1])  # (N, r)
            grad_columns = (ctx.scale * skinny).to(ctx.columns_dtype)
        return grad_x, None, None, grad_columns, None, None


class EagerPaCALinear(PaCALinear):
    """y = base(x), where W[:, index] = s * columns trains; refresh() is due after every optimizer step."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., K) -> y (..., N). Under autocast the product and both gradients are in autocast's dtype."""
        weight, bias = self.weight, self.bias
        device = x.device.type
        if not torch.is_autocast_enabled(device):
            return _LiveColumns.apply(x, weight, bias, self.columns, self.index, self.scale)
        # Autocast acts on operators, not on what a Function saves: cast first, so that backward is in that dtype too.
        dtype = torch.get_autocast_dtype(device)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        return _LiveColumns.apply(x, weight, bias, self.columns, self.index, self.scale)


def seed_of(name: str) -> int:
    """The seed of a layer's columns: 63 bits of a hash of its full name, the same on every machine and in every run."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") >> 1


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains `columns` (N, r) of every target layer; which columns they are follows from the layer's name."""
    assert case.rank is not None and case.alpha is not None
    rank, alpha, dtype = case.rank, case.alpha, adapter_dtype(case)
    return adapt(
        model,
        case,
        lambda name, layer: EagerPaCALinear(layer, rank, alpha, seed=seed_of(name), adapter_dtype=dtype),
    )
