"""Arguments of lora_linear as the kernels take them."""

import torch
from torch import Tensor


def cast(
    dtype: torch.dtype, x: Tensor, weight: Tensor, a: Tensor, b: Tensor, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """What autocast makes of F.linear's arguments; fp32 adapters stay, since they are rounded inside."""
    if a.dtype != torch.float32:
        a, b = a.to(dtype), b.to(dtype)
    return x.to(dtype), weight.to(dtype), a, b, None if bias is None else bias.to(dtype)


def prepared(weight: Tensor, a: Tensor, b: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """weight in rows or columns of unit stride that do not overlap, a, b and bias contiguous."""
    n, k = weight.shape
    rows, columns = weight.stride()
    if not ((columns == 1 and rows >= k) or (rows == 1 and columns >= n)):
        weight = weight.contiguous()
    return weight, a.contiguous(), b.contiguous(), None if bias is None else bias.contiguous()


def seed_tensor(seed: int | None, device: torch.device) -> Tensor:
    """The seed on the device: drawn there, so that a replayed CUDA graph drops other elements each time."""
    if seed is None:
        return torch.randint(-(2**63), 2**63 - 1, (1,), device=device)
    return torch.full((1,), seed, dtype=torch.int64, device=device)
