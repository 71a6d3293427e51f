"""Small arithmetic that host code and kernels agree on."""

import torch
from torch import Tensor


def padded(rank: int) -> int:
    """Rank padded for tl.dot (at least 16) and tl.arange (a power of two)."""
    return max(16, 1 << (rank - 1).bit_length())


def mask_bytes(columns: int) -> int:
    """Bytes in a row of the packed keep-mask of so many columns."""
    return -(-columns // 8)


def threshold_of(dropout_p: float) -> int:
    """16-bit draws below it are dropped."""
    return round(dropout_p * 65536)


def unpack_mask(mask: Tensor, columns: int) -> Tensor:
    """The packed mask (M, cdiv(columns, 8)) uint8 as booleans (M, columns); for tests and baselines."""
    bits = (mask[:, :, None] >> torch.arange(8, dtype=torch.uint8, device=mask.device)) & 1
    return bits.reshape(mask.shape[0], -1)[:, :columns].bool()
