"""paca_linear, the public function: validation, autocast, and the autograd.Function."""

from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch import Tensor

from ..runtime import launch
from ..runtime.checks import check_index_values, check_paca
from ..runtime.stand_ins import stands_for_gpu
from . import reference
from .autograd import PacaLinear, Plan

_plans = launch.PlanCache()


def paca_linear(
    x: Tensor,
    weight: Tensor,
    columns: Tensor,
    index: Tensor,
    *,
    scale: float = 1.0,
    bias: Tensor | None = None,
    scheme: str | None = None,
) -> Tensor:
    """y = x W^T + bias, where the columns W[:, index] = scale * columns train and live inside the weight.

    x (..., K), weight (N, K) frozen, in either layout, columns (N, r) in the dtype of x or fp32, index (r,) int32 or
    int64, unique, bias (N,), all of any strides; returns (..., N) in the dtype of x. scale is any real number.
    Precondition: weight[:, index] == scale * columns. Forward never reads columns; backward gives
    columns.grad = scale * dY^T x[:, index], accumulated in fp32, in the dtype of columns. Between them only x[:, index]
    is kept. Under autocast x, weight and bias are cast as F.linear's are. scheme overrides the choice: 'gather',
    'fused' or 'torch' (see kernels/paca/autograd.py).

    Gradients can be differentiated again and batched, as those of lora_linear; tensor subclasses, and calls under
    torch.func, forward-mode differentiation or torch.jit.trace take the reference. Raises ValueError or TypeError
    before any launch, naming the argument, as lora_linear does; the values of index are read once per tensor.
    """
    if torch.compiler.is_compiling():
        return _compiling(x, weight, columns, index, scale, bias, scheme)
    try:
        device = x.device
        autocast = torch.is_autocast_enabled(device.type)
        key = (
            x.shape, x.stride(), x.dtype, device, weight.shape, weight.dtype, weight.device, columns.shape,
            columns.dtype, columns.device, index.shape, index.stride(), index.dtype, index.device, type(scale), scheme,
            None if bias is None else (bias.shape, bias.dtype, bias.device), (x.data_ptr() | index.data_ptr()) % 16,
            weight.requires_grad, type(x), x.is_neg(), type(weight), type(columns),
        )  # fmt: skip
        plan = None if autocast else _plans.get(key)
    except AttributeError:  # not a tensor: the checks say which
        check_paca(x, weight, columns, index, bias, scale)
        raise
    except RuntimeError:  # a tensor without storage or strides: of vmap, torch.func, sparse, MKL-DNN, nested
        if not torch.is_grad_enabled():
            return F.linear(x, weight, bias)
        return reference.product_rule(x, weight, columns, index, scale, bias)
    if plan is None:
        check_paca(x, weight, columns, index, bias, scale, autocast)
    check_index_values(index, weight.shape[1])
    unknown = plan is None or torch._C._functorch.peek_interpreter_stack() is not None or forward_ad._current_level >= 0
    if unknown and not launch.ordinary(x, weight, columns, index, bias):
        if stands_for_gpu(x):
            return _compiling(x, weight, columns, index, scale, bias, scheme)
        return reference.product_rule(x, weight, columns, index, float(scale), bias)
    if autocast:
        dtype = torch.get_autocast_dtype(device.type)
        bias = None if bias is None else bias.to(dtype)
        x, weight = x.to(dtype), weight.to(dtype)
        columns = columns if columns.dtype == torch.float32 else columns.to(dtype)
        with torch.autocast(device.type, enabled=False):
            return paca_linear(x, weight, columns, index, scale=scale, bias=bias, scheme=scheme)
    if not torch.is_grad_enabled():
        return F.linear(x, weight, bias)  # nothing to gather
    if launch.elsewhere(x):
        with torch.cuda.device(device):
            return paca_linear(x, weight, columns, index, scale=scale, bias=bias, scheme=scheme)
    shape = x.shape
    flat = x if plan is not None and plan.viewed else launch.rows(x, shape[-1])
    if plan is None:
        given, index = index, index.contiguous()
        keep = (flat.data_ptr() | index.data_ptr()) % 16 == 0
        plan = Plan(flat, weight.shape[0], columns.shape[1], columns.dtype, scheme, keep)
        plan.viewed = flat.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
        # What a copy has aligned or put in order is not in the key: another tensor may be off next time.
        if keep and x.data_ptr() % 16 == 0 and given is index:
            _plans[key] = plan
    if type(scale) is not float:  # Triton makes a constant of an int 1, and a kept kernel has it for ever
        scale = float(scale)
    if plan.viewed:
        return PacaLinear.apply(x, weight, columns, index, bias, scale, plan)[0]
    y, _ = PacaLinear.apply(flat, weight, columns, index, bias, scale, plan)
    return y if len(shape) == 2 else y.view(*shape[:-1], y.shape[-1])


def _compiling(*args: Any) -> Tensor:
    from .custom_ops import paca_linear_compiled

    return paca_linear_compiled(*args)
