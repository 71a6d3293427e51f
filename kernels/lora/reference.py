"""LoRA in plain torch: what the kernels must compute."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime.checks import check_lora


def keep_mask(x: Tensor, dropout_p: float, seed: int | None) -> Tensor:
    """A boolean keep-mask of x's shape: True with probability 1 - dropout_p, drawn from `seed` or torch's own state."""
    generator = None
    if seed is not None:
        generator = torch.Generator(x.device).manual_seed(seed)
    return torch.rand(x.shape, generator=generator, device=x.device) >= dropout_p


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
    keep: Tensor | None = None,
) -> Tensor:
    """y = x W^T + bias + scale * drop(x) A^T B^T  (Hu et al., 2021, equation 3).

    x (..., K), weight (N, K), lora_a (r, K), lora_b (N, r), bias (N,); returns (..., N) in the dtype of x. Adapters in
    fp32 under a 16-bit x are rounded to the dtype of x first. `keep`, boolean and of x's shape, replaces the mask that
    `seed` would draw: the kernels draw another one, so a comparison under dropout passes theirs.
    """
    autocast = torch.is_autocast_enabled(x.device.type) if isinstance(x, Tensor) else False
    check_lora(x, weight, lora_a, lora_b, bias, scale, dropout_p, seed, autocast)
    y = F.linear(x, weight, bias)
    if dropout_p > 0.0:
        if keep is None:
            keep = keep_mask(x, dropout_p, seed)
        x = x * keep.to(x.dtype) / (1.0 - dropout_p)
    s = F.linear(x, lora_a.to(x.dtype))
    return y + scale * F.linear(s, lora_b.to(s.dtype))
