"""What implementations with a hand-written backward share: their operands' dtype, and LoRA's skinny GEMMs."""

import torch
from torch import Tensor


def as_computed(x: Tensor, *others: Tensor | None) -> list[Tensor | None]:
    """x and the others in the dtype that a GEMM of x has: autocast's where it is on, else that of x.

    Autocast acts on operators, not on what a Function saves: cast first, and backward is in that dtype too, while
    gradients come back in the dtypes of the parameters.
    """
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    return [None if t is None else t.to(dtype) for t in (x, *others)]


def scaled_product(p: Tensor, q: Tensor, scale: float) -> Tensor:
    """scale * p q (m, n) of p (m, k), q (k, n), in one GEMM: the scale is its alpha, and beta is 0."""
    return torch.addmm(p.new_empty(()), p, q, beta=0, alpha=scale)


def adapter_gradients(grad_y: Tensor, x: Tensor, s: Tensor, ds: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """dA (r, K) = scale * ds^T x and dB (N, r) = scale * grad_y^T s, of s = x A^T (M, r) and ds = grad_y B (M, r).

    x (M, K) as the branch read it, grad_y (M, N). The scale is in neither s nor ds.
    """
    return scaled_product(ds.t(), x, scale), scaled_product(grad_y.t(), s, scale)
