"""The kernel cases, in the interpreter."""

import pytest
import torch

from kernels import lora_linear, paca_linear
from kernels.lora import custom_ops as ops
from kernels.runtime import launch
from tests.kernels.dropout_cases import *  # noqa: F403
from tests.kernels.group_cases import *  # noqa: F403
from tests.kernels.kernel_cases import *  # noqa: F403


def off(*shape: int) -> torch.Tensor:
    """Random values that do not begin at a multiple of 16 bytes."""
    return torch.randn(torch.Size(shape).numel() + 1)[1:].view(shape)


@pytest.fixture
def unaligned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Kernels that keep their first compilation, which holds for aligned pointers, and are given another one."""
    found: list[str] = []

    def record(run: launch.Launch, inputs: dict) -> None:
        tensors = [arg for arg in inputs.values() if isinstance(arg, torch.Tensor)]
        if run.keep and any(t.data_ptr() % 16 for t in tensors):
            found.append(run.name)

    monkeypatch.setattr(launch, "recorder", record)
    return found


def test_a_plan_of_what_autocast_aligned_serves_no_unaligned_adapter(unaligned: list[str]) -> None:
    weight, b = torch.randn(24, 40), torch.randn(24, 8)
    with torch.autocast("cpu", torch.bfloat16):
        lora_linear(off(16, 40), weight, torch.randn(8, 40), b, scale=1.0)
        lora_linear(torch.randn(16, 40), weight, off(8, 40), b, scale=1.0)
    assert not unaligned


def test_a_plan_of_a_copied_x_serves_no_unaligned_index(unaligned: list[str]) -> None:
    weight, columns = torch.randn(24, 40), torch.randn(24, 8, requires_grad=True)
    index = torch.arange(9, dtype=torch.int32)
    paca_linear(off(40, 16).t(), weight, columns, index[:8])
    paca_linear(torch.randn(40, 16).t(), weight, columns, index[1:])
    assert not unaligned


def test_a_compiled_plan_serves_no_unaligned_b(unaligned: list[str]) -> None:
    x, weight, a = torch.randn(16, 40), torch.randn(24, 40), torch.randn(8, 40)
    ops.lora_forward(x, weight, a, torch.randn(24, 8), None, None, 1.0, 0.0, None)
    ops.lora_forward(x, weight, a, off(24, 8), None, None, 1.0, 0.0, None)
    assert not unaligned
