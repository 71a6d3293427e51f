"""fp32 adapters over 16 bits: their gradients have the range of fp32, as PEFT's have, with loss scaling or not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels import lora_linear, lora_linear_group

M, N, K, R = 32, 40, 32, 8


def grouped(x: Tensor, weight: Tensor, a: Tensor, b: Tensor, *, scale: float, dropout_p: float, scheme: None) -> Tensor:
    return lora_linear_group(x, [weight, weight[:8]], [a, a], [b, b[:8]], scale=scale, dropout_p=dropout_p)[0]


SCHEMES = ["epilogue/epilogue", "cublas/cublas", "single_pass/cublas_fused_da", "torch/torch", None]


@pytest.mark.parametrize(
    ("dtype", "loss_scale"),
    [(torch.float16, 1.0), (torch.float16, 65536.0), (torch.bfloat16, 1.0)],
    ids=["fp16", "fp16 with GradScaler", "bf16"],
)
@pytest.mark.parametrize("how", [*SCHEMES, "group", "A alone"], ids=str)
def test_small_gradients_survive(how: str | None, loss_scale: float, dtype: torch.dtype) -> None:
    """B as after a first step of AdamW, dY as a mean over a few thousand tokens leaves it; their product lies below
    fp16's least number, 6e-8, and dA comes from it."""
    g = torch.Generator().manual_seed(2)
    x, weight = torch.randn(M, K, generator=g).to(dtype), (torch.randn(N, K, generator=g) / K**0.5).to(dtype)
    a, b = torch.randn(R, K, generator=g) / K**0.5, 2e-5 * torch.randn(N, R, generator=g)
    dy = (1e-5 * loss_scale * torch.randn(M, N, generator=g)).to(dtype)
    trained = [a.requires_grad_()] if how == "A alone" else [a.requires_grad_(), b.requires_grad_()]
    scheme = how if how in SCHEMES else None
    function = grouped if how == "group" else lora_linear
    y = function(x, weight, a, b, scale=2.0, dropout_p=0.0, scheme=scheme)
    found = torch.autograd.grad(y, trained, dy)
    wide, x64 = dy.double(), x.double()
    truth = [2.0 * (wide @ b.double()).T @ x64, 2.0 * wide.T @ (x64 @ a.double().T)]
    assert all(t.dtype == torch.float32 for t in found)
    for ours, right in zip(found, truth, strict=False):
        assert (ours == 0).sum() <= (right.float() == 0).sum(), "part of the gradient is lost"
        # Half a unit in the last place of the 16-bit operands, which are rounded once or twice.
        assert (ours.double() - right).norm() <= torch.finfo(dtype).eps * right.norm()


def test_large_values_do_not_overflow() -> None:
    """Loss scaling makes dY B larger than fp16's greatest number, 65504, where no gradient is."""
    x, weight = torch.full((32, 16), 2.0**-10).half(), torch.zeros(64, 16).half()
    a, b = torch.zeros(4, 16, requires_grad=True), torch.full((64, 4), 4.0, requires_grad=True)
    dy = torch.full((32, 64), 1024.0).half()
    (found,) = torch.autograd.grad(lora_linear(x, weight, a, b, scale=1.0), a, dy)
    torch.testing.assert_close(found, torch.full((4, 16), 32 * 64 * 4.0))
