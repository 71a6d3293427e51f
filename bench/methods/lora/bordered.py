"""lora, impl bordered: one cuBLAS GEMM of [X, S] with the resident [W, sB], a baseline for forward.

X lies in a buffer (M, K + room) from the start, as if its producer had written it there: that copy is not counted, and
S = X A^T, which is written beside it, is. Anything that computes the layer by cuBLAS does at least this.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bench.case import Case
from bench.methods.adapt import Trained, adapt_lora
from bench.methods.operands import adapter_gradients
from kernels import LoRALinear


class _OneProduct(torch.autograd.Function):
    """x (..., K), which `padded` (M, K + room) holds, border (N, K + room) = [W, sB, 0] -> y (..., N)."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, a: Tensor, b: Tensor, bias: Tensor | None, padded: Tensor, border: Tensor, scale: float
    ) -> Tensor:
        k, rank = x.shape[-1], a.shape[0]
        ctx.scale = scale
        ctx.save_for_backward(x, a, b, border)
        torch.mm(padded[:, :k], a.t(), out=padded[:, k : k + rank])
        y = torch.mm(padded, border.t()) if bias is None else torch.addmm(bias, padded, border.t())
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        """From x alone: the next forward writes over S. No clock reports it."""
        x, a, b, border = ctx.saved_tensors
        rows, dy = x.reshape(-1, x.shape[-1]), grad_y.reshape(-1, grad_y.shape[-1])
        ds = dy @ b
        da, db = adapter_gradients(dy, rows, rows @ a.t(), ds, ctx.scale)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = (dy @ border[:, : x.shape[-1]]).addmm_(ds, a, alpha=ctx.scale).view(x.shape)
        return dx, da, db, None, None, None, None


class BorderedLoRALinear(LoRALinear):
    """y = [x, x A^T] [W, sB]^T + b. refresh() writes sB beside W, and is due after every optimizer step."""

    refresh_due: ClassVar[bool] = True

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.border()  # W moves into a buffer with room for sB
        self._held: tuple[Tensor, int] | None = None  # the x that lies in _padded, and its version
        self._padded: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """x (..., K) -> y (..., N). An x that was not the last one is copied into its buffer first."""
        assert self._border is not None
        padded = self._padded
        if padded is None or self._held is None or self._held[0] is not x or self._held[1] != x._version:
            padded = self._hold(x)
        return _OneProduct.apply(x, self.lora_a, self.lora_b, self.bias, padded, self._border, self.scale)

    @torch.no_grad()
    def _hold(self, x: Tensor) -> Tensor:
        assert self._border is not None
        rows = x.reshape(-1, x.shape[-1])
        padded = self._padded = rows.new_zeros(rows.shape[0], self._border.shape[1])
        padded[:, : rows.shape[1]] = rows
        self._held = (x, x._version)
        return padded

    @torch.no_grad()
    def refresh(self) -> None:
        """border <- [W, sB, 0]; W is there already."""
        assert self._border is not None
        torch.mul(self.lora_b, self.scale, out=self._border[:, self.in_features : self.in_features + self.rank])


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains A (r, K) and B (N, r) of every target layer."""
    return adapt_lora(model, case, BorderedLoRALinear)
