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

    x (..., K), weight (N, K), lora_a (r, K), lora_b (N, r), bias (N,); returns (..., N) in the dtype of x. The branch
    is computed in the dtype of the adapters, as PEFT's is, and rounded once. `keep`, boolean and of x's shape, replaces
    the mask that `seed` would draw: the kernels draw another one, so a comparison under dropout passes theirs.
    """
    autocast = torch.is_autocast_enabled(x.device.type) if isinstance(x, Tensor) else False
    check_lora(x, weight, lora_a, lora_b, bias, scale, dropout_p, seed, autocast)
    return computed(x, weight, lora_a, lora_b, scale, bias, dropout_p, seed, keep)


def computed(
    x: Tensor, weight: Tensor, a: Tensor, b: Tensor, scale: float, bias: Tensor | None, p: float, seed: int | None,
    keep: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The computation alone, without the checks: for tensors that have no storage of their own too."""
    y = F.linear(x, weight, bias)
    x = x.to(a.dtype)
    if p > 0.0:
        keep = keep_mask(x, p, seed) if keep is None else keep
        x = x * keep.to(x.dtype) / (1.0 - p)
    return (y + scale * F.linear(F.linear(x, a), b)).to(y.dtype)
