"""paca, impl eager: one ordinary GEMM forward, a skinny one backward. The live columns stay inside the weight."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bench.case import Case
from bench.methods.adapt import Trained, adapt_paca
from bench.methods.operands import as_computed
from kernels import PaCALinear


def columns_gradient(grad_y: Tensor, x_live: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """d columns (N, r) = scale * dY^T x[:, index], by the product rule; grad_y (..., N), x_live (..., r)."""
    skinny = grad_y.reshape(-1, grad_y.shape[-1]).t() @ x_live.reshape(-1, x_live.shape[-1])
    return (scale * skinny).to(dtype)


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
            grad_columns = columns_gradient(grad_y, x_live, ctx.scale, ctx.columns_dtype)
        return grad_x, None, None, grad_columns, None, None


class EagerPaCALinear(PaCALinear):
    """y = base(x), where W[:, index] = s * columns trains; refresh() is due after every optimizer step."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., K) -> y (..., N). Under autocast the GEMM and both gradients are in autocast's dtype."""
        return _LiveColumns.apply(*as_computed(x, self.weight, self.bias), self.columns, self.index, self.scale)


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains `columns` (N, r) of every target layer."""
    return adapt_paca(model, case, EagerPaCALinear)
