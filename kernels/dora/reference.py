"""DoRA in plain torch: what the kernels must compute."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..lora.reference import keep_mask
from ..runtime.checks import check_dora


def dora_linear(
    x: Tensor,
    weight: Tensor,
    lora_a: Tensor,
    lora_b: Tensor,
    magnitude: Tensor,
    *,
    scale: float,
    bias: Tensor | None = None,
    dropout_p: float = 0.0,
    seed: int | None = None,
    keep: Tensor | None = None,
) -> Tensor:
    """y = g * (x W^T + scale * x A^T B^T) + bias, g = magnitude / ||W + scale * B A|| by row  (Liu et al., 2024).

    x (..., K), weight (N, K), lora_a (r, K), lora_b (N, r), magnitude (N,), bias (N,); returns (..., N) in the dtype of
    x. The norm is taken in fp32 at least and is a constant to autograd (section 4.3). Under dropout, as in PEFT, what
    g adds to the layer reads drop(x): y = x W^T + (g - 1) * drop(x) W^T + g * scale * drop(x) A^T B^T + bias. `keep`,
    boolean and of x's shape, replaces the mask that `seed` would draw.
    """
    autocast = torch.is_autocast_enabled(x.device.type) if isinstance(x, Tensor) else False
    check_dora(x, weight, lora_a, lora_b, magnitude, bias, scale, dropout_p, seed, autocast)
    return computed(x, weight, lora_a, lora_b, magnitude, scale, bias, dropout_p, seed, keep)


def computed(
    x: Tensor, weight: Tensor, a: Tensor, b: Tensor, magnitude: Tensor, scale: float, bias: Tensor | None,
    p: float = 0.0, seed: int | None = None, keep: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The computation alone, without the checks: for tensors that have no storage of their own too."""
    g = magnitude / row_norms(weight, a, b, scale)
    whole = product = F.linear(x, weight)
    if p > 0.0:
        keep = keep_mask(x, p, seed) if keep is None else keep
        x = x * keep.to(x.dtype) / (1.0 - p)
        product = F.linear(x, weight)
    y = g * (product + scale * F.linear(F.linear(x.to(a.dtype), a), b))
    if p > 0.0:
        y = y + (whole - product)
    return (y if bias is None else y + bias).to(whole.dtype)


def row_norms(weight: Tensor, a: Tensor, b: Tensor, scale: float) -> Tensor:
    """||W + scale * B A|| by row, (N,), in fp32 at least; detached."""
    weight, a, b = weight.detach(), a.detach(), b.detach()
    wide = torch.promote_types(torch.promote_types(weight.dtype, a.dtype), torch.float32)
    return torch.linalg.vector_norm(weight.to(wide) + scale * (b.to(wide) @ a.to(wide)), dim=1)
