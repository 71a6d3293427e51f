"""Gradients of PEFT's fp32 adapters over a 16-bit model after accelerate(): as near float64's as PEFT's own are."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from kernels.peft import accelerate

peft = pytest.importorskip("peft")

M, N, K, SCALE = 32, 40, 32, 2.0


def adapted(dtype: torch.dtype) -> nn.Module:
    """A linear layer of this dtype under PEFT's default, adapters in fp32, B as after a first step of AdamW."""
    torch.manual_seed(4)
    base = nn.Sequential(nn.Linear(K, N, bias=False)).to(dtype)
    model = peft.get_peft_model(base, peft.LoraConfig(r=8, lora_alpha=8 * SCALE, target_modules=["0"]))
    layer = model.base_model.model[0]
    nn.init.normal_(layer.lora_B["default"].weight, std=2e-5)
    assert layer.lora_A["default"].weight.dtype == torch.float32
    return model


def gradients(model: nn.Module, x: Tensor, dy: Tensor, autocast: torch.dtype | None) -> list[Tensor]:
    layer = model.base_model.model[0]
    with torch.autocast("cpu", autocast, enabled=autocast is not None):
        y = model(x)
    return list(
        torch.autograd.grad(y, [layer.lora_A["default"].weight, layer.lora_B["default"].weight], dy.to(y.dtype))
    )


@pytest.mark.parametrize("loss_scale", [1.0, 65536.0], ids=["", "GradScaler"])
@pytest.mark.parametrize(
    ("dtype", "autocast"),
    [
        (torch.float16, None), (torch.bfloat16, None), (torch.float32, torch.float16), (torch.float16, torch.float16),
        (torch.float32, torch.bfloat16), (torch.bfloat16, torch.bfloat16),
    ],
    ids=lambda value: "" if value is None else str(value)[6:],
)  # fmt: skip
def test_gradients_are_as_near_as_pefts(dtype: torch.dtype, autocast: torch.dtype | None, loss_scale: float) -> None:
    model = adapted(dtype)
    g = torch.Generator().manual_seed(5)
    x = torch.randn(M, K, generator=g).to(dtype)
    dy = (1e-5 * loss_scale * torch.randn(M, N, generator=g)).to(autocast or dtype)
    theirs = gradients(model, x, dy, autocast)
    fused = copy.deepcopy(model)
    assert len(accelerate(fused).accelerated) == 1
    ours = gradients(fused, x, dy, autocast)
    layer = model.base_model.model[0]
    a, b = (part["default"].weight.double() for part in (layer.lora_A, layer.lora_B))
    wide, x64 = dy.double(), x.double()
    truth = [SCALE * (wide @ b).T @ x64, SCALE * wide.T @ (x64 @ a.T)]
    rounding = torch.finfo(autocast or dtype).eps
    for one, other, right in zip(ours, theirs, truth, strict=True):
        found, allowed = ((g.double() - right).norm() / right.norm() for g in (one, other))
        assert found <= 1.25 * allowed + rounding
        assert (one == 0).sum() <= (other == 0).sum()
