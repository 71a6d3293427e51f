"""lora_linear, the public function: validation, autocast, and the way to the kernels or to the reference."""

from typing import Any

import torch
import torch.autograd.forward_ad as forward_ad
from torch import Tensor
from torch.compiler import is_compiling

from ..runtime import launch
from ..runtime.checks import check_dropout, check_lora
from ..runtime.schemes import split_scheme
from ..runtime.stand_ins import stands_for_gpu
from . import reference
from .arguments import any_autocast, autocast_dtype, cast, draw_seed, prepared
from .autograd import Plan, apply_function, apply_node, make_plan, may_copy, transforms_active
from .bordered_weight import NO_BORDER, borders

_plans = launch.PlanCache()


def lora_linear(
    x: Tensor,
    weight: Tensor,
    lora_a: Tensor,
    lora_b: Tensor,
    *,
    scale: float,
    bias: Tensor | None = None,
    dropout_p: float = 0.0,
    seed: int | None = None,
    scheme: str | None = None,
) -> Tensor:
    """y = x W^T + bias + scale * drop(x) A^T B^T  (Hu et al., 2021, equation 3; drop is inverted dropout).

    x (..., K), weight (N, K) in either layout (a Conv1D passes weight.T), lora_a (r, K), lora_b (N, r), bias (N,), all
    of any strides; returns (..., N) in the dtype of x. scale is any real number. Adapters have the dtype of x, or fp32:
    then forward rounds them to it inside, and their gradients are accumulated and returned in fp32, under an fp16 x
    from factors that keep fp32's range. Under autocast x, weight and bias are cast as F.linear's are.
    seed None draws from torch's generator of the device; two calls with one seed drop the same elements.
    scheme overrides the dispatcher: 'epilogue', 'epilogue/cublas', '/cublas' (see kernels/runtime/schemes.py).

    CUDA tensors run the Triton kernels, as do CPU tensors under TRITON_INTERPRET=1; other tensors, fp32 with dropout on
    a GPU, tensor subclasses, and calls under torch.func, forward-mode differentiation or torch.jit.trace take the
    reference. Gradients can be differentiated again and batched: with create_graph=True and under vmap torch's own
    operations compute them. Raises ValueError or TypeError before any launch, naming the argument; what F.linear
    answers with a RuntimeError is one too.
    """
    if is_compiling():
        return _compiling(x, weight, lora_a, lora_b, scale, bias, dropout_p, seed, scheme)
    try:
        device = x.device
        autocast = autocast_dtype(device) if any_autocast() else None
        key = (
            x.shape, x.stride(), x.dtype, device, weight.shape, weight.stride(), weight.dtype, weight.device,
            lora_a.shape, lora_a.stride(), lora_a.dtype, lora_a.device, lora_b.shape, lora_b.stride(), lora_b.dtype,
            lora_b.device, None if bias is None else (bias.shape, bias.stride(), bias.dtype, bias.device), type(scale),
            dropout_p, type(seed), scheme, autocast, type(x), x.is_neg(), type(weight), type(lora_a),
            (borders.get(weight.data_ptr(), NO_BORDER).fit, may_copy(lora_a)) if borders else None,
            (x.data_ptr() | weight.data_ptr() | lora_a.data_ptr() | lora_b.data_ptr()
             | (0 if bias is None else bias.data_ptr())) % 16,
        )  # fmt: skip
        plan = _plans.get(key)
    except AttributeError:  # not a tensor: the checks say which
        check_lora(x, weight, lora_a, lora_b, bias, scale, dropout_p, seed)
        raise
    except RuntimeError:  # a tensor without storage or strides: of vmap, torch.func, sparse, MKL-DNN, nested
        return reference.computed(x, weight, lora_a, lora_b, scale, bias, dropout_p, seed)
    if plan is None or forward_ad._current_level >= 0:
        return _first(x, weight, lora_a, lora_b, scale, bias, dropout_p, seed, scheme, key)
    if autocast is not None:
        x, weight, lora_a, lora_b, bias = cast(autocast, x, weight, lora_a, lora_b, bias)
    here = plan.gpu is None or plan.gpu == torch._C._cuda_getDevice()
    if plan.viewed and type(scale) is float and here and not transforms_active():  # _apply, in one frame
        seeds = None if dropout_p == 0.0 else draw_seed(seed, device)
        return apply_node(x, weight, lora_a, lora_b, bias, (plan, scale, dropout_p, seeds))[0]
    return _apply(x, weight, lora_a, lora_b, scale, bias, dropout_p, seed, plan)


def _apply(
    x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float, bias: Tensor | None, p: float, seed: int | None,
    plan: Plan,
) -> Tensor:  # fmt: skip
    if launch.elsewhere(x):
        with torch.cuda.device(x.device):
            return _apply(x, weight, a, b, scale, bias, p, seed, plan)
    seeds = None if p == 0.0 else draw_seed(seed, x.device)
    if type(scale) is not float:  # Triton makes a constant of an int 1, and a kept kernel has it for ever
        scale = float(scale)
    if plan.viewed:
        return apply_function(x, weight, a, b, bias, (plan, scale, p, seeds))[0]
    shape = x.shape
    y, _ = apply_function(launch.rows(x, shape[-1]), weight, a, b, bias, (plan, scale, p, seeds))
    return y if len(shape) == 2 else y.view(*shape[:-1], y.shape[-1])


def _first(
    x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float, bias: Tensor | None, p: float, seed: int | None,
    scheme: str | None, key: Any,
) -> Tensor:  # fmt: skip
    """A case not seen before: checked, planned, and remembered."""
    autocast = autocast_dtype(x.device)
    check_lora(x, weight, a, b, bias, scale, p, seed, autocast is not None)
    split_scheme(scheme)
    scale, p = float(scale), float(p)
    if stands_for_gpu(x):
        return _compiling(x, weight, a, b, scale, bias, p, seed, scheme)
    by_reference = x.dtype == torch.float64 or not launch.runs_triton(x) or not launch.ordinary(x, weight, a, b, bias)
    if autocast is not None and not by_reference:
        x, weight, a, b, bias = cast(autocast, x, weight, a, b, bias)
    # fp32 on a GPU runs in cuBLAS, and cuBLAS draws no mask.
    if by_reference or (x.is_cuda and x.dtype == torch.float32 and p > 0.0):
        return reference.computed(x, weight, a, b, scale, bias, p, seed)
    inputs = (weight, a, b, bias)
    weight, a, b, bias = prepared(weight, a, b, bias)
    flat = launch.rows(x, x.shape[-1])
    pointers = [t.data_ptr() for t in (flat, weight, a, b, *(() if bias is None else (bias,)))]
    keep = all(pointer % 16 == 0 for pointer in pointers)
    viewed = flat.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    lead = x.shape[:-1] if viewed and x.dim() != 2 else None
    plan = make_plan(flat, weight, a, bias, p > 0.0, scheme, keep, lead=lead)
    plan.viewed = viewed
    if plan.spec.choice.scheme == "torch" and p > 0.0:
        return reference.computed(x, weight, a, b, scale, bias, p, seed)
    # Not remembered: a case whose weights were copied above, which every call must do again; nor one that a cast or a
    # copy has aligned, since another tensor may be the one off in the next call of the same key.
    copied = any(given is not used for given, used in zip(inputs, (weight, a, b, bias), strict=True))
    if keep and not copied and key[-1] == 0:
        _plans[key] = plan
    return _apply(x, weight, a, b, scale, bias, p, seed, plan)


def keep_mask(x: Tensor, dropout_p: float, seed: int) -> Tensor:
    """The mask that lora_linear draws for x (..., K) from this seed: boolean, True where an element is kept.

    For baselines: pass it to kernels.reference.lora_linear as `keep`. It is the kernels' mask; where lora_linear takes
    the reference (see there), it is the reference's.
    """
    check_dropout(dropout_p, seed)
    if not launch.runs_triton(x) or not launch.ordinary(x) or dropout_p == 0.0:
        return reference.keep_mask(x, dropout_p, seed)
    from ..runtime.sizes import unpack_mask
    from .forward import build_project

    flat = launch.rows(x, x.shape[-1])
    a = torch.zeros(1, x.shape[-1], dtype=x.dtype, device=x.device)
    plan = make_plan(flat, a, a, None, True, "cublas", False)
    mask = build_project(plan.spec, 1)(flat, a, 1.0, dropout_p, draw_seed(seed, x.device))[1]
    assert mask is not None
    return unpack_mask(mask, x.shape[-1]).view(x.shape)


def _compiling(*args: Any) -> Tensor:
    from .custom_ops import lora_linear_compiled

    return lora_linear_compiled(*args)
