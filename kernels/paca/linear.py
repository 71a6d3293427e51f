"""paca_linear: one ordinary GEMM forward, a skinny product backward."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from ..checks import check_index_values, check_paca


class _PacaLinear(torch.autograd.Function):
    """Saves x[:, index] (M, r) and the weight; never x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, columns: Tensor, index: Tensor, scale: float, bias: Tensor | None):
        ctx.scale = scale
        ctx.columns_dtype = columns.dtype
        x_idx = x.index_select(-1, index) if ctx.needs_input_grad[2] else None
        ctx.save_for_backward(weight if ctx.needs_input_grad[0] else None, x_idx)
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor):
        weight, x_idx = ctx.saved_tensors
        grad_x = grad_columns = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = grad_y @ weight
        if ctx.needs_input_grad[2]:
            left = grad_y.reshape(-1, grad_y.shape[-1]).to(ctx.columns_dtype)
            right = x_idx.reshape(-1, x_idx.shape[-1]).to(ctx.columns_dtype)
            grad_columns = ctx.scale * (left.t() @ right)
        if ctx.needs_input_grad[5]:
            grad_bias = grad_y.reshape(-1, grad_y.shape[-1]).sum(0)
        return grad_x, None, grad_columns, None, None, grad_bias


def paca_linear(
    x: Tensor,
    weight: Tensor,
    columns: Tensor,
    index: Tensor,
    *,
    scale: float = 1.0,
    bias: Tensor | None = None,
) -> Tensor:
    """y = x W^T + bias, where the columns W[:, index] = scale * columns train and live inside the weight.

    x (..., K), weight (N, K) frozen, columns (N, r), index (r,) int32 or int64, unique, bias (N,); returns (..., N).
    Precondition: weight[:, index] == scale * columns. Forward never reads columns; backward gives
    columns.grad = scale * dY^T x[:, index], in the dtype of columns.
    """
    autocast = torch.is_autocast_enabled(x.device.type) if isinstance(x, Tensor) else False
    check_paca(x, weight, columns, index, bias, scale, autocast)
    check_index_values(index, weight.shape[1])
    if autocast:
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
    with torch.autocast(x.device.type, enabled=False):
        return _PacaLinear.apply(x, weight, columns, index, scale, bias)
