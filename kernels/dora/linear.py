"""dora_linear, the public function: validation, autocast, and the way to the kernels or to the reference."""

from typing import Any

import torch
from torch import Tensor

from ..lora import lora_linear
from ..lora.arguments import any_autocast, autocast_dtype, cast, prepared
from ..runtime import launch
from ..runtime.checks import check_dora
from ..runtime.dispatch import Case
from ..runtime.schemes import split_scheme
from ..runtime.stand_ins import stands_for_gpu
from . import reference
from .autograd import Magnitude, Plan

_plans = launch.PlanCache()


def dora_linear(
    x: Tensor,
    weight: Tensor,
    lora_a: Tensor,
    lora_b: Tensor,
    magnitude: Tensor,
    *,
    scale: float,
    bias: Tensor | None = None,
    scheme: str | None = None,
) -> Tensor:
    """y = g * (x W^T + scale * x A^T B^T) + bias, g = magnitude / ||W + scale * B A|| by row  (Liu et al., 2024).

    x (..., K), weight (N, K) in either layout (a Conv1D passes weight.T), lora_a (r, K), lora_b (N, r), magnitude (N,),
    bias (N,), all of any strides; returns (..., N) in the dtype of x. The norm over K is taken in fp32 in one pass over
    W, in forward alone, and is a constant to autograd (section 4.3). A, B and magnitude have the dtype of x, or fp32,
    A and B the same; fp32 A and B are rounded to it for the norm as for the product. Gradients of fp32 parameters are
    fp32. The product is lora_linear's, by `scheme` (see there); autocast acts as it does there. Without a trained
    magnitude nothing of y's size is kept, with one x W^T + scale * x A^T B^T is. Dropout is left to the reference.

    CUDA tensors of 16 bits run the Triton kernels, as do CPU tensors under TRITON_INTERPRET=1. Others (fp32 on a GPU,
    tensor subclasses) and calls under torch.func, forward-mode differentiation or torch.jit.trace take the reference
    as a whole. Under torch.compile the product is lora_linear's custom op, and norm and magnitude are torch's
    operations; with create_graph=True they are too. Raises ValueError or TypeError before any launch, naming the
    argument.
    """
    if torch.compiler.is_compiling():
        check_dora(x, weight, lora_a, lora_b, magnitude, bias, scale, autocast=torch.is_autocast_enabled(x.device.type))
        return _by_operations(x, weight, lora_a, lora_b, magnitude, scale, bias, scheme)
    try:
        tensors = (
            (x, weight, lora_a, lora_b, magnitude) if bias is None else (x, weight, lora_a, lora_b, magnitude, bias)
        )
        key = (*(_kind(t) for t in tensors), type(scale), scheme)
        # Of x lora_linear asks by itself.
        aligned = all(t.data_ptr() % 16 == 0 for t in tensors[1:])
    except AttributeError:  # not a tensor: the checks say which
        check_dora(x, weight, lora_a, lora_b, magnitude, bias, scale)
        raise
    except RuntimeError:  # a tensor without storage or strides: of vmap, torch.func, sparse, MKL-DNN, nested
        return reference.computed(x, weight, lora_a, lora_b, magnitude, scale, bias)
    autocast = autocast_dtype(x.device) if any_autocast() else None
    plan = _plans.get(key) if aligned and autocast is None and not launch.transformed() else None
    if plan is None:
        check_dora(x, weight, lora_a, lora_b, magnitude, bias, scale, autocast=autocast is not None)
        split_scheme(scheme)
        if stands_for_gpu(x):
            return _by_operations(x, weight, lora_a, lora_b, magnitude, scale, bias, scheme)
        if _by_reference(tensors, autocast):
            return reference.computed(x, weight, lora_a, lora_b, magnitude, scale, bias)
    if autocast is not None:
        x, weight, lora_a, lora_b, bias = cast(autocast, x, weight, lora_a, lora_b, bias)
        magnitude = magnitude if magnitude.dtype == torch.float32 else magnitude.to(autocast)
        with torch.autocast(x.device.type, enabled=False):
            return dora_linear(x, weight, lora_a, lora_b, magnitude, scale=scale, bias=bias, scheme=scheme)
    if launch.elsewhere(x):
        with torch.cuda.device(x.device):
            return dora_linear(x, weight, lora_a, lora_b, magnitude, scale=scale, bias=bias, scheme=scheme)
    if plan is None:
        given = (weight, lora_a, lora_b, bias, magnitude)
        weight, lora_a, lora_b, bias = prepared(weight, lora_a, lora_b, bias)
        magnitude = magnitude.contiguous()
        used = (weight, lora_a, lora_b, bias, magnitude)
        keep = all(t is None or t.data_ptr() % 16 == 0 for t in used)
        plan = Plan(_case(x, weight, lora_a, bias), weight, magnitude, keep)
        # Not remembered where something was copied, which every call must do again.
        if aligned and all(t is u for t, u in zip(given, used, strict=True)):
            _plans[key] = plan
    scale = float(scale)  # Triton makes a constant of an int 1
    squares = plan.squares(weight, lora_a, lora_b, scale)
    z = lora_linear(x, weight, lora_a, lora_b, scale=scale, scheme=scheme)
    return Magnitude.apply(z, magnitude, bias, squares, plan)


def _kind(t: Tensor) -> tuple[Any, ...]:
    return type(t), t.shape, t.stride(), t.dtype, t.device, t.is_neg()


def _by_reference(tensors: tuple[Tensor, ...], autocast: torch.dtype | None) -> bool:
    x = tensors[0]
    dtype = autocast or x.dtype
    return (
        dtype == torch.float64
        or x.dtype == torch.float64
        or not launch.runs_triton(x)
        or not launch.ordinary(*tensors)
        or (x.is_cuda and (dtype == torch.float32 or launch.architecture(x.device) < 80))
    )


def _case(x: Tensor, weight: Tensor, a: Tensor, bias: Tensor | None) -> Case:
    n, k = weight.shape
    return Case(
        m=x.numel() // k, n=n, k=k, rank=a.shape[0], arch=launch.architecture(x.device),
        sms=launch.multiprocessors(x.device), interpreted=launch.interpreting(),
        fp32_adapters=a.dtype == torch.float32 != weight.dtype, conv1d=weight.stride(1) != 1, bias=bias is not None,
    )  # fmt: skip


def _by_operations(
    x: Tensor, weight: Tensor, a: Tensor, b: Tensor, magnitude: Tensor, scale: float, bias: Tensor | None,
    scheme: str | None,
) -> Tensor:  # fmt: skip
    """For torch.compile, and for tensors that stand for a GPU's."""
    z = lora_linear(x, weight, a, b, scale=scale, scheme=scheme)
    y = magnitude / reference.row_norms(weight, a, b, scale) * z
    return (y if bias is None else y + bias).to(z.dtype)
