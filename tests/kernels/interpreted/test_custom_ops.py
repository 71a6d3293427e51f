"""The custom ops behind torch.compile: opcheck, and equality with the eager path, forward and backward."""

from __future__ import annotations

import pytest
import torch

from kernels import lora_linear, paca_linear
from kernels.lora import custom_ops as lora_ops
from kernels.paca import custom_ops as paca_ops
from kernels.runtime import launch
from tests.kernels.kernel_correctness import LoraCase, error, poison


@pytest.fixture(autouse=True)
def poison_and_count(monkeypatch):
    poison(monkeypatch)
    launch.counts.clear()
    yield
    torch._dynamo.reset()


def tensors(case: LoraCase):
    t = case.tensors()
    return [
        None if t[name] is None else t[name].requires_grad_(name in "xab") for name in ("x", "weight", "a", "b", "bias")
    ]


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [pytest.param(0.0, id=""), pytest.param(0.1, id="dropout")])
def test_opcheck_of_lora(dropout: float) -> None:
    seed = torch.tensor([3]) if dropout else None
    x, weight, a, b, bias = tensors(LoraCase(20, 40, 24, 8, bias=True))
    torch.library.opcheck(lora_ops.lora_forward, (x, weight, a, b, bias, seed, 0.5, dropout, "epilogue/epilogue"))
    y, s, mask = lora_ops.lora_forward(x, weight, a, b, bias, seed, 0.5, dropout, "epilogue/epilogue")
    args = (torch.ones_like(y), x, weight, a, b, s, mask, 0.5, dropout, "epilogue/epilogue", True, True, True)
    torch.library.opcheck(lora_ops.lora_backward, tuple(v.detach() if isinstance(v, torch.Tensor) else v for v in args))


@pytest.mark.slow
def test_opcheck_of_paca() -> None:
    x, weight, _, _, bias = tensors(LoraCase(20, 40, 24, 8, bias=True))
    index = torch.arange(8)
    columns = weight[:, index].clone().requires_grad_()
    torch.library.opcheck(paca_ops.paca_forward, (x, weight, columns, index, bias, 0.5))
    dy, x_idx = torch.randn(20, 24), torch.randn(20, 8)
    torch.library.opcheck(paca_ops.paca_product, (dy, x_idx, index, 0.5, False))


@pytest.mark.slow
def test_a_scheme_of_paca_is_refused_while_compiling() -> None:
    x, weight, *_ = tensors(LoraCase(20, 40, 24, 8))
    index = torch.arange(4)
    columns = weight.detach()[:, index].clone().requires_grad_()
    compiled = torch.compile(lambda x: paca_linear(x, weight.detach(), columns, index, scheme="x"), backend="eager")
    with pytest.raises(ValueError, match="scheme is 'x', expected"):
        compiled(x)


@pytest.mark.parametrize("dropout", [0.0, pytest.param(0.2, marks=pytest.mark.slow)], ids=["", "dropout"])
def test_compiled_equals_eager(dropout: float) -> None:
    x, weight, a, b, bias = tensors(LoraCase(20, 40, 24, 8, bias=True, lead=True))
    index = torch.arange(4)
    columns = weight[:, index].clone().requires_grad_()

    def layer(x, a, b, columns):
        y = lora_linear(x, weight, a, b, scale=0.5, bias=bias, dropout_p=dropout, seed=7 if dropout else None)
        return y + paca_linear(x, weight, columns, index, scale=2.0)

    leaves = (x, a, b, columns)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    got, want = compiled(*leaves), layer(*leaves)
    launch.counts.clear()
    grads = torch.autograd.grad(got.square().sum(), leaves)
    assert launch.counts["branch_gradients_kernel"] == 1 and launch.counts["skinny_kernel"] >= 1
    assert error(got, want) < 1e-5
    for ours, eager in zip(grads, torch.autograd.grad(want.square().sum(), leaves), strict=True):
        assert error(ours, eager) < 1e-5
