"""NF4 with double quantisation in plain PyTorch (Dettmers et al., 2023, QLoRA, section 3), as bitsandbytes stores it.

A weight (N, K) is read row by row in blocks of 64 values. A block has one scale, its largest magnitude, and each value
becomes the nearest of 16 levels times that scale: a code of 4 bits, two to a byte, the first in the upper half. The
scales, less their mean, are themselves stored in 8 bits, in blocks of 256 with one fp32 scale each. That makes 4.127
bits a value.
"""

from dataclasses import dataclass
from functools import cache
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.methods.qlora.format import BLOCK, SCALES

TINY = 1e-38  # in place of the scale of a block of zeros

# The quantiles of N(0, 1) of the paper's appendix E, scaled to [-1, 1], in the digits of bitsandbytes.
LEVELS = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip


def _dynamic_map() -> list[float]:
    """The 256 values of an 8-bit scale (Dettmers, 2015, 8-bit approximations): +-10^-e times a fraction, the more
    digits the larger; 0 and 1 beside them."""
    found = [0.0, 1.0]
    for i in range(7):
        edges = torch.linspace(0.1, 1, 2**i + 1, dtype=torch.float32)
        middles = (10.0 ** (i - 6) * (edges[:-1] + edges[1:]) / 2.0).tolist()
        found += middles + [-m for m in middles]
    return sorted(found)


@cache
def _tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The levels' midpoints (15,), the two levels of each byte (256, 2), the scales' map (256,), its midpoints (255,).

    fp32, on the device; made once, so that a call that a CUDA graph captures makes none.
    """
    levels = torch.tensor(LEVELS, device=device)
    pairs = torch.stack((levels.repeat_interleave(16), levels.repeat(16)), dim=1)
    scales = torch.tensor(_dynamic_map(), device=device)
    return (levels[:-1] + levels[1:]) / 2, pairs, scales, (scales[:-1] + scales[1:]) / 2


@dataclass(frozen=True)
class NF4:
    """A quantised weight (n, k). Its tensors, on one device, none of which requires grad:"""

    codes: Tensor  # uint8 (32 x blocks,): two values a byte; a last block that is not full is filled up with zeros
    scale_codes: Tensor  # uint8 (blocks,)
    scale_scales: Tensor  # fp32 (ceil(blocks / 256),)
    mean: Tensor  # fp32 (), of the scales
    shape: tuple[int, int]

    def scales(self) -> Tensor:
        """fp32 (blocks,)."""
        table = _tables(self.codes.device)[2]
        wide = self.scale_scales[:, None].expand(-1, SCALES).reshape(-1)[: len(self.scale_codes)]
        return table.index_select(0, self.scale_codes.int()) * wide + self.mean

    def dequantise(self, dtype: torch.dtype) -> Tensor:
        """The weight (n, k): level x scale in fp32, rounded once."""
        pairs = _tables(self.codes.device)[1].index_select(0, self.codes.int())
        n, k = self.shape
        return (pairs.view(-1, BLOCK) * self.scales()[:, None]).view(-1)[: n * k].view(n, k).to(dtype)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.codes, self.scale_codes, self.scale_scales, self.mean

    @classmethod
    def of(cls, tensors: tuple[Tensor, ...], shape: tuple[int, int]) -> Self:
        """From what `tensors` gave."""
        return cls(*tensors, shape)


@torch.no_grad()
def quantise(weight: Tensor) -> NF4:
    """A weight (N, K) of any float dtype and layout; it is left as it is."""
    midpoints, _, _, scale_midpoints = _tables(weight.device)
    n, k = weight.shape
    blocks = _blocks(weight.detach().float().reshape(-1), BLOCK)
    largest, codes = _nearest(blocks, midpoints)
    mean = largest.mean()
    scale_scales, scale_codes = _nearest(_blocks(largest - mean, SCALES), scale_midpoints)
    high, low = codes.view(-1, 2).unbind(1)
    own = scale_codes.view(-1)[
        : len(largest)
    ].clone()  # not a view, which would keep what the last block was filled with
    return NF4(high << 4 | low, own, scale_scales, mean, (n, k))


def _blocks(values: Tensor, size: int) -> Tensor:
    """values (count,) as (ceil(count / size), size), the last filled up with zeros."""
    return F.pad(values, (0, -len(values) % size)).view(-1, size)


def _nearest(blocks: Tensor, midpoints: Tensor) -> tuple[Tensor, Tensor]:
    """The largest magnitude of each row, and uint8 codes of the values over it: that of the nearest level."""
    largest = blocks.abs().amax(dim=1)
    scaled = (blocks * (1.0 / largest.clamp(min=TINY))[:, None]).clamp(-1, 1)
    return largest, torch.bucketize(scaled, midpoints, out_int32=True).to(torch.uint8)
