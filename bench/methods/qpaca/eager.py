"""qpaca, impl eager: NF4 dequantised in every forward and backward, the live columns put in the place of its own."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bench.case import Case
from bench.methods.adapt import Trained, adapt, adapter_dtype
from bench.methods.operands import as_computed
from bench.methods.paca.eager import columns_gradient
from bench.methods.qlora.layer import NF4Linear
from bench.methods.qlora.nf4 import NF4
from kernels import PaCALinear
from kernels.paca.target_layers import seed_of


def with_columns(packed: tuple[Tensor, ...], shape: tuple[int, int], live: Tensor, index: Tensor) -> Tensor:
    """W (N, K) dequantised to the dtype of `live` (N, r), which are its columns `index`."""
    return NF4.of(packed, shape).dequantise(live.dtype).index_copy_(1, index, live)


class _LiveColumns(torch.autograd.Function):
    """y = x W^T + b; keeps x[:, index], the live columns and the codes for backward, neither x nor W."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, bias: Tensor | None, columns: Tensor, index: Tensor, scale: float,
        shape: tuple[int, int], *packed: Tensor,
    ) -> Tensor:  # fmt: skip
        ctx.scale, ctx.columns_dtype, ctx.shape = scale, columns.dtype, shape
        live = (scale * columns).to(x.dtype)
        x_live = x.index_select(-1, index) if ctx.needs_input_grad[2] else None
        ctx.save_for_backward(x_live, live, index, *packed)
        return F.linear(x, with_columns(packed, shape, live, index), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x_live, live, index, *packed = ctx.saved_tensors
        grad_x = grad_columns = None
        if ctx.needs_input_grad[0]:
            grad_x = grad_y @ with_columns(tuple(packed), ctx.shape, live, index)
        if x_live is not None:
            grad_columns = columns_gradient(grad_y, x_live, ctx.scale, ctx.columns_dtype)
        return (grad_x, None, grad_columns, None, None, None, *(None for _ in packed))


class QPaCALinear(nn.Module):
    """y = x W^T + b with W in NF4 but for W[:, index] = s * columns, which trains.

    base: nn.Linear or Conv1D, quantised. columns (N, r), index (r,): those of a PaCALinear of the same seed.
    """

    index: Tensor

    def __init__(
        self, base: nn.Module, rank: int, alpha: float, *, seed: int = 0, adapter_dtype: torch.dtype | None = None
    ) -> None:
        super().__init__()
        plain = PaCALinear(base, rank, alpha, seed=seed, adapter_dtype=adapter_dtype)
        self.base, self.rank, self.alpha, self.scale = NF4Linear(base), rank, alpha, plain.scale
        self.columns = plain.columns
        self.register_buffer("index", plain.index)

    @property
    def weight(self) -> Tensor:
        """W (N, K) with the live columns, made anew at each call, in the dtype in which it was stored before."""
        live = (self.scale * self.columns.detach()).to(self.base.dtype)
        return with_columns(self.base.nf4.tensors(), self.base.shape, live, self.index)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., K) -> y (..., N). Under autocast the GEMM and both gradients are in autocast's dtype."""
        x_, bias = as_computed(x, self.base.bias)
        packed = self.base.nf4.tensors()
        return _LiveColumns.apply(x_, bias, self.columns, self.index, self.scale, self.base.shape, *packed)


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains `columns` (N, r) of every target layer; which columns they are follows from the layer's name."""
    assert case.rank is not None and case.alpha is not None
    rank, alpha, dtype = case.rank, case.alpha, adapter_dtype(case)
    return adapt(
        model, case, lambda name, layer: QPaCALinear(layer, rank, alpha, seed=seed_of(name), adapter_dtype=dtype)
    )
