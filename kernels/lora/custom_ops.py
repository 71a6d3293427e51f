"""The same calls as custom ops with fake implementations, for torch.compile alone.

A custom op with autograd costs 17.5 us a call on the host where the autograd.Function costs 4.8, so eager code never
comes here. S' is never split here: its shape must follow from the shapes of the arguments, which may be symbolic.
"""

from typing import Any

import torch
from torch import Tensor

from ..runtime import launch
from ..runtime.checks import check_lora
from ..runtime.compiling import runs_triton
from ..runtime.dispatch import MOST_RANK
from ..runtime.schemes import split_scheme
from ..runtime.sizes import mask_bytes, padded
from ..runtime.stand_ins import stands_for_gpu
from . import reference
from .arguments import cast, prepared, seed_tensor
from .autograd import Plan, by_torch, make_plan
from .forward import in_parts

_plans = launch.PlanCache()


def _plan(
    x: Tensor, weight: Tensor, a: Tensor, b: Tensor, bias: Tensor | None, p: float, scheme: str | None
) -> Plan:  # fmt: skip
    tensors = (x, weight, a, b) if bias is None else (x, weight, a, b, bias)
    keep = all(t.data_ptr() % 16 == 0 for t in tensors)
    fits = (x.data_ptr() | weight.data_ptr()) % 16 == 0  # TMA takes no other
    key = (*((t.shape, t.stride(), t.dtype, t.device) for t in tensors), p, scheme, keep, fits)
    plan = _plans.get(key)
    if plan is None:
        plan = _plans[key] = make_plan(x, weight, a, bias, p > 0.0, scheme, keep, whole=True)
    return plan


@torch.library.custom_op("lorabench::lora_forward", mutates_args=())
def lora_forward(
    x: Tensor, weight: Tensor, a: Tensor, b: Tensor, bias: Tensor | None, seed: Tensor | None, scale: float,
    dropout_p: float, scheme: str | None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y (M, N), S' (1, M, RP), and the packed mask (M, cdiv(K, 8)), empty without dropout; x is (M, K)."""
    flat = launch.rows(x, x.shape[1])
    weight, a, b, bias = prepared(weight, a, b, bias)
    plan = _plan(flat, weight, a, b, bias, dropout_p, scheme)
    y, s, mask = plan.forward(flat, weight, a, b, bias, scale, dropout_p, seed)
    s = in_parts(s)
    missing = padded(a.shape[0]) - s.shape[2]
    s = torch.nn.functional.pad(s, (0, missing)) if missing else s
    return y, s, x.new_empty(0, 0, dtype=torch.uint8) if mask is None else mask


@lora_forward.register_fake
def _(x, weight, a, b, bias, seed, scale, dropout_p, scheme):
    m, k = x.shape
    mask = x.new_empty((m, mask_bytes(k)) if dropout_p > 0.0 else (0, 0), dtype=torch.uint8)
    return x.new_empty(m, weight.shape[0]), x.new_empty(1, m, padded(a.shape[0])), mask


@torch.library.custom_op("lorabench::lora_backward", mutates_args=())
def lora_backward(
    dy: Tensor, x: Tensor | None, weight: Tensor, a: Tensor, b: Tensor, s: Tensor, mask: Tensor, scale: float,
    dropout_p: float, scheme: str | None, need_x: bool, need_a: bool, need_b: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dX (M, K), dA (r, K), dB (N, r); those not needed are empty. x is None where dA is not needed."""
    dy = launch.rows(dy, dy.shape[1])
    # In place of an x that nobody reads, one row of its width stands for all: a plan asks for shape and alignment.
    k = weight.shape[1]
    flat = dy.new_empty(1, k).expand(dy.shape[0], k) if x is None else launch.rows(x, k)
    weight, a, b, _ = prepared(weight, a, b, None)
    plan = _plan(flat, weight, a, b, None, dropout_p, scheme)
    used = mask if dropout_p > 0.0 else None
    run = plan.backward((need_x, need_a, need_b), dy, flat, weight, s, a, b, used)
    grads = run(dy, flat, weight, a, b, s, used, scale / (1.0 - dropout_p))
    grad_x, grad_a, grad_b = (dy.new_empty(0, 0) if grad is None else grad for grad in grads)
    return grad_x, grad_a, grad_b


@lora_backward.register_fake
def _(dy, x, weight, a, b, s, mask, scale, dropout_p, scheme, need_x, need_a, need_b):
    return (
        dy.new_empty((dy.shape[0], weight.shape[1]) if need_x else (0, 0)),
        a.new_empty(a.shape) if need_a else dy.new_empty(0, 0),
        b.new_empty(b.shape) if need_b else dy.new_empty(0, 0),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, a, b, _, _, ctx.scale, ctx.dropout_p, ctx.scheme = inputs
    ctx.set_materialize_grads(False)
    _, need_w, need_a = ctx.needs_input_grad[:3]
    ctx.save_for_backward(x if need_w or need_a else None, weight, a, b, output[1], output[2])


def _backward(ctx: Any, dy: Tensor | None, grad_s: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
    x, weight, a, b, s, mask = ctx.saved_tensors
    if dy is None or grad_s is not None or not launch.launches_backward(dy):
        dy = s.new_zeros(s.shape[1], weight.shape[0]) if dy is None else dy
        scale, drawn = ctx.scale / (1.0 - ctx.dropout_p), mask if ctx.dropout_p > 0.0 else None
        grads = by_torch(ctx.needs_input_grad, a.shape[0], a.dtype, scale, dy, grad_s, x, weight, a, b, s, drawn)
        return (*grads, None, None, None, None)
    need_x, need_w, need_a, need_b, need_bias = ctx.needs_input_grad[:5]
    grad_x, grad_a, grad_b = lora_backward(
        dy, x, weight, a, b, s, mask, ctx.scale, ctx.dropout_p, ctx.scheme, need_x, need_a, need_b
    )
    return (
        grad_x if need_x else None,
        dy.t() @ x if need_w else None,
        grad_a if need_a else None,
        grad_b if need_b else None,
        dy.sum(0) if need_bias else None,
        None, None, None, None,
    )  # fmt: skip


lora_forward.register_autograd(_backward, setup_context=_setup)


def lora_linear_compiled(
    x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float, bias: Tensor | None, p: float, seed: int | None,
    scheme: str | None,
) -> Tensor:  # fmt: skip
    """lora_linear while torch.compile traces."""
    autocast = torch.is_autocast_enabled(x.device.type)
    check_lora(x, weight, a, b, bias, scale, p, seed, autocast)
    scale, p = float(scale), float(p)
    cublas = (x.is_cuda or stands_for_gpu(x)) and x.dtype == torch.float32 and not autocast
    # What runs in cuBLAS throughout has no kernel to draw the mask.
    cublas |= p > 0.0 and (
        padded(a.shape[0]) > MOST_RANK or 0 < launch.architecture(x.device) < 80 or split_scheme(scheme)[0] == "torch"
    )
    empty = x.numel() == 0 or weight.numel() == 0
    if not runs_triton(x) or x.dtype == torch.float64 or cublas or empty:
        return reference.computed(x, weight, a, b, scale, bias, p, seed)
    if autocast:
        x, weight, a, b, bias = cast(torch.get_autocast_dtype(x.device.type), x, weight, a, b, bias)
    seeds = seed_tensor(seed, x.device) if p > 0.0 else None
    flat = x.reshape(-1, x.shape[-1])
    y = torch.ops.lorabench.lora_forward(flat, weight, a, b, bias, seeds, scale, p, scheme)[0]
    return y.reshape(*x.shape[:-1], y.shape[-1])
