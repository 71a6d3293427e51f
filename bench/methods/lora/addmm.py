"""lora, impl addmm: three cuBLAS calls, the branch added in place: the scheme of Unsloth, Axolotl, Transformer Engine.

Forward: Y = X W^T + b, S = drop(X) A^T, Y += s S B^T by beta and alpha of the third GEMM. Backward, in this order:
dS = dY B, dB = s dY^T S, dX = dY W, dX += s dS A, dA = s dS^T drop(X). What is never made: the branch's own output and
its gradient, which eager writes and reads again.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bench.case import Case
from bench.methods.adapt import Trained, adapt_lora
from bench.methods.operands import adapter_gradients, as_computed
from kernels import LoRALinear


class _ThreeProducts(torch.autograd.Function):
    """x (..., K), weight (N, K), bias (N,) or None, a (r, K), b (N, r), all of one dtype -> y (..., N)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float, p: float
    ) -> Tensor:
        ctx.scale, ctx.p, ctx.shape = scale, p, x.shape
        rows = x.reshape(-1, x.shape[-1])
        y = F.linear(rows, weight, bias)
        dropped, mask = torch.native_dropout(rows, p, True) if p else (rows, None)
        s = dropped @ a.t()
        y.addmm_(s, b.t(), alpha=scale)
        ctx.save_for_backward(dropped, mask, weight, a, b, s)
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        dropped, mask, weight, a, b, s = ctx.saved_tensors
        dy = grad_y.reshape(-1, grad_y.shape[-1])
        ds = dy @ b
        da = db = None
        if any(ctx.needs_input_grad[3:5]):
            da, db = adapter_gradients(dy, dropped, s, ds, ctx.scale)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = dy @ weight
            if mask is None:
                dx.addmm_(ds, a, alpha=ctx.scale)
            else:
                dx.add_(torch.ops.aten.native_dropout_backward(ds @ a, mask, ctx.scale / (1.0 - ctx.p)))
            dx = dx.view(ctx.shape)
        return dx, None, None, da, db, None, None


class AddmmLoRALinear(LoRALinear):
    """y = base(x) + s * drop(x) A^T B^T. Adapters are cast to the dtype of the base GEMM."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., K) -> y (..., N)."""
        operands = as_computed(x, self.weight, self.bias, self.lora_a, self.lora_b)
        return _ThreeProducts.apply(*operands, self.scale, self.dropout if self.training else 0.0)


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains A (r, K) and B (N, r) of every target layer."""
    return adapt_lora(model, case, AddmmLoRALinear)
