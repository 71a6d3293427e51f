"""paca_linear while torch.compile traces: torch's own ops but for dP, which is a custom op with a fake."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime import launch
from ..runtime.checks import check_paca
from ..runtime.compiling import runs_triton
from . import reference
from .autograd import Plan, input_gradient

_plans = launch.PlanCache()


@torch.library.custom_op("lorabench::paca_product", mutates_args=())
def paca_product(dy: Tensor, x_idx: Tensor, index: Tensor, scale: float, fp32: bool) -> Tensor:
    """scale * dY^T x_idx (N, r); in fp32, or in the dtype of dy."""
    dy, x_idx = launch.rows(dy, dy.shape[1]), x_idx.contiguous()
    dtype = torch.float32 if fp32 else dy.dtype
    key = (dy.shape, dy.dtype, dy.device, x_idx.shape, dtype)
    plan = _plans.get(key)
    if plan is None:
        plan = _plans[key] = Plan(x_idx, dy.shape[1], x_idx.shape[1], dtype, None, True)
    # The gathered columns are the whole of this x, so nothing is gathered again.
    return plan.grad_columns(dy, x_idx, index, scale)


@paca_product.register_fake
def _(dy, x_idx, index, scale, fp32):
    return dy.new_empty(dy.shape[1], x_idx.shape[1], dtype=torch.float32 if fp32 else dy.dtype)


def _setup_product(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    dy, x_idx, _, ctx.scale, _ = inputs
    ctx.save_for_backward(dy, x_idx)


def _product_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Both factors of a product: for gradients of gradients."""
    dy, x_idx = ctx.saved_tensors
    grad = ctx.scale * grad
    return (x_idx.to(grad.dtype) @ grad.t()).to(dy.dtype), (dy.to(grad.dtype) @ grad).to(x_idx.dtype), None, None, None


paca_product.register_autograd(_product_backward, setup_context=_setup_product)


@torch.library.custom_op("lorabench::paca_forward", mutates_args=())
def paca_forward(
    x: Tensor, weight: Tensor, columns: Tensor, index: Tensor, bias: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    """y (M, N) and x[:, index] (M, r); x is (M, K)."""
    return F.linear(x, weight, bias), x.index_select(1, index)


@paca_forward.register_fake
def _(x, weight, columns, index, bias, scale):
    return x.new_empty(x.shape[0], weight.shape[0]), x.new_empty(x.shape[0], index.shape[0])


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    _, weight, columns, index, _, ctx.scale = inputs
    ctx.set_materialize_grads(False)
    ctx.fp32 = columns.dtype == torch.float32 and output[1].dtype != torch.float32
    ctx.save_for_backward(weight, columns, index, output[1])


def _backward(ctx: Any, dy: Tensor | None, grad_selected: Tensor | None) -> tuple[Tensor | None, ...]:
    weight, columns, index, x_idx = ctx.saved_tensors
    dy = weight.new_zeros(x_idx.shape[0], weight.shape[0]) if dy is None else dy
    needs = ctx.needs_input_grad
    grad_columns = None
    if needs[2]:
        grad_columns = torch.ops.lorabench.paca_product(dy, x_idx, index, ctx.scale, ctx.fp32)
    grad_x = None
    if needs[0] and (torch.is_grad_enabled() or grad_selected is not None):
        grad_x = input_gradient(dy, grad_selected, weight, columns, index, ctx.scale)
    elif needs[0]:
        grad_x = dy @ weight
    return grad_x, None, grad_columns, None, dy.sum(0) if needs[4] else None, None


paca_forward.register_autograd(_backward, setup_context=_setup)


def paca_linear_compiled(
    x: Tensor, weight: Tensor, columns: Tensor, index: Tensor, scale: float, bias: Tensor | None, scheme: str | None
) -> Tensor:
    """paca_linear while torch.compile traces; the values of index are not read there.

    There is one form of it: a call that asks for a scheme breaks the graph and runs outside of it.
    """
    if scheme is not None:
        raise ValueError(f"scheme is {scheme!r}, expected None under torch.compile, which has one form of paca_linear")
    autocast = torch.is_autocast_enabled(x.device.type)
    check_paca(x, weight, columns, index, bias, scale, autocast)
    if not runs_triton(x) or x.dtype == torch.float64:
        return reference.product_rule(x, weight, columns, index, scale, bias)
    if autocast:
        dtype = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        columns = columns if columns.dtype == torch.float32 else columns.to(dtype)
    flat = x.reshape(-1, x.shape[-1])
    y = torch.ops.lorabench.paca_forward(flat, weight, columns, index, bias, float(scale))[0]
    return y.reshape(*x.shape[:-1], y.shape[-1])
