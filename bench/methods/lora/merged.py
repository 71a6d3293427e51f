"""lora, impl merged: one GEMM forward, as in full fine-tuning, with W + s B A merged once per optimizer step.

RunLoRA's idea (Cherniuk et al., 2023): computing X (W + s B A)^T costs no branch. In backward dX = dY (W + s B A), and
the adapters' gradients take the cheaper of the two orders, dA = s (dY B)^T X and dB = s dY^T (X A^T), always so while
r is far below N and K. The price is in the merge: 16 bits round W + s B A at the size of W, so that of the branch less
is left the smaller it is, and an update below half a unit in W's last place is lost. `note` says how much.
"""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bench.case import Case
from bench.methods.adapt import DTYPES, Trained, adapt_lora
from bench.methods.operands import adapter_gradients, as_computed
from kernels import LoRALinear


class _OneProduct(torch.autograd.Function):
    """x (..., K), whole (N, K) = W + s B A, bias, a (r, K), b (N, r), all of one dtype -> y (..., N)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, whole: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        ctx.save_for_backward(x, whole, a, b)
        return F.linear(x, whole, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, whole, a, b = ctx.saved_tensors
        rows, dy = x.reshape(-1, x.shape[-1]), grad_y.reshape(-1, grad_y.shape[-1])
        da = db = None
        if any(ctx.needs_input_grad[3:5]):
            da, db = adapter_gradients(dy, rows, rows @ a.t(), dy @ b, ctx.scale)
        dx = (dy @ whole).view(x.shape) if ctx.needs_input_grad[0] else None
        return dx, None, None, da, db, None


class MergedLoRALinear(LoRALinear):
    """y = x (W + s B A)^T + b. refresh() merges, and is due after every optimizer step."""

    refresh_due: ClassVar[bool] = True
    whole: Tensor  # W + s B A (N, K), in the dtype and layout of W

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.register_buffer("whole", self.weight.detach().clone(), persistent=False)  # B is zero

    def forward(self, x: Tensor) -> Tensor:
        """x (..., K) -> y (..., N)."""
        return _OneProduct.apply(*as_computed(x, self.whole, self.bias, self.lora_a, self.lora_b), self.scale)

    @torch.no_grad()
    def refresh(self) -> None:
        """whole <- W + s B A, rounded once."""
        if self.lora_a.dtype == self.whole.dtype:
            torch.addmm(self.weight, self.lora_b, self.lora_a, alpha=self.scale, out=self.whole)
        else:  # adapters wider than W
            self.whole.copy_(torch.addmm(self.weight.float(), self.lora_b, self.lora_a, alpha=self.scale))

    @torch.no_grad()
    def lost(self, dtype: torch.dtype) -> Tensor:
        """Norms of what rounding takes from the branch, round(W + s B A) - (W + s B A), of s B A, and of W: (3,)."""
        wide = torch.promote_types(self.whole.dtype, torch.float32)
        branch = self.scale * (self.lora_b.to(wide) @ self.lora_a.to(wide))
        off = self.whole.to(dtype).to(wide) - self.weight - branch
        return torch.stack([torch.linalg.vector_norm(t, dtype=wide) for t in (off, branch, self.weight)])


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains A (r, K) and B (N, r) of every target layer."""
    return adapt_lora(model, case, MergedLoRALinear)


def note(model: nn.Module, case: Case) -> str:
    """What rounding the merged weights takes from the branches, over all layers, with B as it is."""
    word = case.precision.removeprefix("amp-")
    norms = torch.stack([m.lost(DTYPES[word]) for m in model.modules() if isinstance(m, MergedLoRALinear)])
    off, branch, weight = norms.norm(dim=0).tolist()
    return f"W + sBA rounded to {word}: off by {off / branch:.2g} of sBA, itself {branch / weight:.2g} of W"
