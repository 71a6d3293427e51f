"""What a GPU's torch would do where a CPU's does something else, for fake tensors on the CPU that stand for a GPU's.

A build of torch without CUDA cannot run fake CUDA tensors: many operators ask for a device. So a trace runs on fake CPU
tensors, and three things that differ are done here as a GPU does them: dropout, attention, and autocast's lists.
"""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

_aten = torch.ops.aten

# They draw values; a fake tensor has none, and what it was made as is enough.
_DRAWN_IN_PLACE = ("normal_", "uniform_", "kaiming_uniform_", "trunc_normal_")

# Of what autocast runs in fp32 on a GPU, and on a CPU as it comes, the functions that decoders have (torch's
# documentation, Automatic Mixed Precision, 'CUDA Ops that can autocast to float32').
_IN_FP32 = (
    "pow", "rsqrt", "exp", "log", "sum", "prod", "norm", "cumsum", "softplus", "layer_norm", "softmax", "log_softmax",
    "cross_entropy", "nll_loss",
)  # fmt: skip


class AsOnGpu(TorchFunctionMode):
    """Inside of it, torch's functions on fake CPU tensors call the operators that they would call on a GPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _DRAWN_IN_PLACE:
            return args[0] if args else kwargs["tensor"]
        name = name.strip("_")
        if name == "dropout":
            return _dropout(*args, **kwargs)
        if name == "scaled_dot_product_attention":
            return _attention(*args, **kwargs)
        if name in _IN_FP32 and torch.is_autocast_enabled("cpu"):
            args, kwargs = torch.utils._pytree.tree_map(_wide, (args, kwargs))
            with torch.autocast("cpu", enabled=False):
                return func(*args, **kwargs)
        return func(*args, **kwargs)


def _wide(value: Any) -> Any:
    is_low = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if is_low else value


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, train: bool = True, inplace: bool = False) -> Tensor:
    """One kernel that draws the mask and applies it, where a CPU has three operators."""
    if not (training and train and p):
        return input
    return torch.native_dropout(input, p, True)[0]


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """FlashAttention in 16 bits, in fp32 the memory-efficient kernel: what torch takes on a GPU without a mask."""
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = (t.to(dtype) for t in (query, key, value))
        around: Any = torch.autocast("cpu", enabled=False)
    else:
        around = nullcontext()
    with around:
        if query.dtype != torch.float32:
            out = _aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, False, scale=scale)
        else:
            if enable_gqa:
                times = query.shape[1] // key.shape[1]
                key, value = (t.repeat_interleave(times, 1) for t in (key, value))
            out = _aten._scaled_dot_product_efficient_attention(
                query, key, value, attn_mask, True, dropout_p, is_causal, scale=scale
            )
    return out[0]
