"""paca, impl swap: live columns into the weight, GEMM, pretrained ones back, in forward and again in backward.

So works a branch of PEFT that adds PaCA: outside of its layers every weight is the pretrained one. About ten small
kernels a layer for what a refresh once per optimizer step does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bench.case import Case
from bench.methods.adapt import Trained, adapt_paca
from bench.methods.operands import as_computed
from bench.methods.paca.eager import columns_gradient
from kernels import PaCALinear


@contextmanager
def _live(weight: Tensor, columns: Tensor, index: Tensor, pretrained: Tensor, scale: float) -> Iterator[Tensor]:
    """weight (N, K) with its live columns in, while the context lasts; through .data, since it comes out unchanged."""
    inside = weight.data
    inside.index_copy_(1, index, (scale * columns).to(weight.dtype))
    yield inside
    inside.index_copy_(1, index, pretrained)


class _Swapped(torch.autograd.Function):
    """y (..., N) of x (..., K); weight (N, K) holds the pretrained columns before and after."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, weight: Tensor, columns: Tensor, index: Tensor, pretrained: Tensor,
        scale: float,
    ) -> Tensor:  # fmt: skip
        ctx.scale = scale
        ctx.save_for_backward(weight, columns, index, pretrained, x.index_select(-1, index))
        with _live(weight, columns, index, pretrained, scale) as live:
            return F.linear(x, live.to(x.dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        weight, columns, index, pretrained, x_live = ctx.saved_tensors
        grad_x = None
        if ctx.needs_input_grad[0]:
            with _live(weight, columns, index, pretrained, ctx.scale) as live:
                grad_x = grad_y @ live.to(grad_y.dtype)
        return grad_x, None, None, columns_gradient(grad_y, x_live, ctx.scale, columns.dtype), None, None, None


class SwapPaCALinear(PaCALinear):
    """y = x W^T + b with W[:, index] = s * columns inside the GEMMs alone. No refresh is due."""

    refresh_due: ClassVar[bool] = False

    def forward(self, x: Tensor) -> Tensor:
        """x (..., K) -> y (..., N)."""
        operands = as_computed(x, self.bias)
        return _Swapped.apply(*operands, self.weight, self.columns, self.index, self.pretrained, self.scale)


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains `columns` (N, r) of every target layer."""
    return adapt_paca(model, case, SwapPaCALinear)
