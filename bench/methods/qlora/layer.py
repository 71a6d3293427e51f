"""A frozen linear layer whose weight is stored in NF4, in plain PyTorch."""

from collections.abc import Callable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bench.methods.operands import as_computed
from bench.methods.qlora.nf4 import NF4, quantise
from kernels.modules.plain_linear import is_conv1d


def parts_of(layer: nn.Module) -> tuple[Tensor, nn.Parameter | None]:
    """What of nn.Linear or transformers' Conv1D is to be quantised: the weight (N, K), contiguous, in its dtype; and
    the bias (N,), frozen."""
    weight = layer.get_parameter("weight").detach()
    bias = None if getattr(layer, "bias", None) is None else layer.get_parameter("bias")
    if bias is not None:
        bias.requires_grad_(False)
    return weight.t().contiguous() if is_conv1d(layer) else weight, bias


class _Dequantised(torch.autograd.Function):
    """y = x W^T + b. W is made of its codes in forward, and again in backward; in between the codes alone are kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bias: Tensor | None, shape: tuple[int, int], *packed: Tensor) -> Tensor:
        ctx.shape = shape
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(*packed)
        return F.linear(x, NF4.of(packed, shape).dequantise(x.dtype), bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad_y @ NF4.of(ctx.saved_tensors, ctx.shape).dequantise(grad_y.dtype)
        return grad_x, None, None, None, None, None, None


class NF4Linear(nn.Module):
    """y = x W^T + b with W (N, K) in NF4, dequantised to x's dtype, or autocast's, in every forward and backward.

    base: nn.Linear or transformers' Conv1D; its weight is quantised as (N, K), its bias is taken over, frozen. dtype:
    that in which the weight was stored, and is given back. Buffers: those of NF4.
    """

    codes: Tensor
    scale_codes: Tensor
    scale_scales: Tensor
    mean: Tensor

    def __init__(self, base: nn.Module) -> None:
        super().__init__()
        weight, self.bias = parts_of(base)
        found = quantise(weight)
        self.dtype, self.shape = weight.dtype, found.shape
        for name in ("codes", "scale_codes", "scale_scales", "mean"):
            self.register_buffer(name, getattr(found, name))

    @property
    def nf4(self) -> NF4:
        return NF4(self.codes, self.scale_codes, self.scale_scales, self.mean, self.shape)

    @property
    def weight(self) -> Tensor:
        """The dequantised weight (N, K), made anew at each call, in the dtype in which it was stored before."""
        return self.nf4.dequantise(self.dtype)

    def forward(self, x: Tensor) -> Tensor:
        """x (..., K) -> y (..., N)."""
        x_, bias = as_computed(x, self.bias)
        return _Dequantised.apply(x_, bias, self.shape, *self.nf4.tensors())

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        """Another dtype is that of what is given back: scales stay as they are."""
        kept = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)
        for name, before in kept.items():
            now = self._buffers[name]
            if now is not None and now.dtype != before.dtype:
                self.dtype = now.dtype
                self._buffers[name] = before.to(now.device)
        return self

    def extra_repr(self) -> str:
        return f"in_features={self.shape[1]}, out_features={self.shape[0]}, bias={self.bias is not None}, NF4"
