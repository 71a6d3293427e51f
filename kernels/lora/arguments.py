"""Arguments of lora_linear as the kernels take them."""

from functools import cache

import torch
from torch import Tensor

#: Whether autocast is enabled on CPUs or GPUs, or some other kind of device: 0.2 us, where the dtype for one kind takes
#: 1.1. It knows nothing of MPS.
any_autocast = torch._C._is_any_autocast_enabled


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype of autocast, where it is enabled for this kind of device."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else None


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


#: What a dropout mask is drawn from: the sum of an int64 tensor (1,) on the device and a number, or the tensor alone.
Seed = Tensor | tuple[Tensor, int]


def draw_seed(seed: int | None, device: torch.device) -> Seed:
    """The seed of a call; None draws one from torch's generator of the device.

    On a GPU nothing is launched for it: as torch's dropout does, the host takes the generator's seed and offset, and
    moves the offset on. manual_seed, fork_rng and checkpoint's preserve_rng_state so mean here what they mean there.
    While a CUDA graph is captured the seed is drawn on the device, so that each replay drops other elements.
    """
    generator = generator_of(device)
    if generator is None:
        return seed_tensor(seed, device)
    if seed is None:
        offset = generator.get_offset()
        generator.set_offset(offset + 4)  # offsets are multiples of 4
        # Weyl's sequence, by the odd number nearest to 2^64 over the golden ratio: no key comes twice under one seed,
        # and those of neighbouring seeds are far apart. Philox asks no more of its keys than that they differ.
        seed = (generator.initial_seed() + (offset // 4 + 1) * 0x9E3779B97F4A7C15 + 2**63) % 2**64 - 2**63
    return _zero(device), seed


def generator_of(device: torch.device) -> torch.Generator | None:
    """torch's generator of a GPU, where the host may ask it and move it on: outside the capture of a CUDA graph."""
    if device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return None
    return torch.cuda.default_generators[device.index]


def seed_tensor(seed: int | None, device: torch.device) -> Tensor:
    """The seed on the device."""
    if seed is None:
        return torch.randint(-(2**63), 2**63 - 1, (1,), device=device)
    return torch.full((1,), seed, dtype=torch.int64, device=device)


@cache
def _zero(device: torch.device) -> Tensor:
    zero = torch.zeros(1, dtype=torch.int64, device=device)
    torch.cuda.synchronize(device)  # other streams read it too
    return zero
