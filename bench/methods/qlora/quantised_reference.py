"""What the correctness check holds a quantised base against: NF4 once more, by other arithmetic.

Levels are computed, not copied: quantiles of the normal distribution. Codes and scales of an implementation are read as
they are stored, decoded here, held against what the weight says, and taken over. Nothing that an implementation
dequantises is looked at.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.case import Case
from bench.methods.qlora.format import BLOCK, SCALES
from bench.methods.reference import ReferenceLayer

#: Between two neighbours equally far, over the largest of the block, the one may be stored for the other: bitsandbytes
#: 0.50.2 on a CPU takes the further one up to 2^-15 beside the middle (seen in 31 of 16384 scales, and in no weight).
NEAR = 2.0**-14

#: NF4Tensor.from_tensor's: four digits of the quantiles as bitsandbytes has them.
TORCHAO_LEVELS = (
    -1.0, -0.6962, -0.5251, -0.3949, -0.2844, -0.1848, -0.0911, 0.0,
    0.0796, 0.1609, 0.2461, 0.3379, 0.4407, 0.5626, 0.7230, 1.0,
)  # fmt: skip


def levels() -> list[float]:
    """QLoRA's appendix E: 8 positive quantiles of N(0, 1), 7 negative ones, and 0, over the largest."""
    outer, quantile = 0.9677083, NormalDist().inv_cdf
    positive = [quantile(outer + (0.5 - outer) * i / 8) for i in range(8)]
    negative = [-quantile(outer + (0.5 - outer) * i / 7) for i in range(7)]
    return sorted(value / positive[0] for value in [*positive, 0.0, *negative])


def scale_values() -> list[float]:
    """Of an 8-bit scale: 0, 1, and +-10^(e - 6) times the middles of 2^e equal parts of [0.1, 1], e from 0 to 6."""
    sizes = [10.0 ** (e - 6) * (0.1 + 0.9 * (i + 0.5) / 2**e) for e in range(7) for i in range(2**e)]
    return sorted([0.0, 1.0, *sizes, *(-size for size in sizes)])


@dataclass(frozen=True)
class Stored:
    """A weight as it is stored, two codes to a byte, scales decoded."""

    packed: Tensor  # uint8: the first of two codes is the upper half of a byte
    scales: Tensor  # (blocks,), decoded
    levels: Tensor  # (16,)
    dtype: torch.dtype  # in which level x scale is computed
    integers: bool = False  # 8-bit scales are evenly spaced integers (torchao), not the floating ones of `scale_values`

    @property
    def codes(self) -> Tensor:
        """(blocks, 64)."""
        return torch.stack((self.packed.view(-1) >> 4, self.packed.view(-1) & 15), dim=1).view(-1, BLOCK)

    def weight(self, n: int, k: int) -> Tensor:
        """W (n, k), rounded once, in `dtype`."""
        product = self.levels[self.codes.int()] * self.scales[:, None]
        return product.view(-1)[: n * k].view(n, k).to(self.dtype)


def read(layer: nn.Module) -> Stored | None:
    """What is stored in a layer or in one of its submodules, by its fields' names; None where nothing is in NF4."""
    for module in layer.modules():
        weight: Any = getattr(module, "weight", None) if "weight" in module._parameters else None
        buffers: Any = module
        if {"codes", "scale_codes", "scale_scales", "mean"} <= module._buffers.keys():
            scales = _floating(buffers.scale_codes, buffers.scale_scales, buffers.mean)
            return Stored(buffers.codes, scales, _levels(scales), torch.float32)
        if getattr(weight, "quant_state", None) is not None:  # bitsandbytes' Params4bit
            state, data = weight.quant_state, weight.data.view(-1)
            scales = _floating(state.absmax, state.state2.absmax, state.offset)
            data = F.pad(data, (0, len(scales) * BLOCK // 2 - len(data)))
            return Stored(data, scales, _levels(scales), torch.float32)
        if hasattr(weight, "quantized_scalers"):  # torchao's NF4Tensor, which computes in the weight's dtype throughout
            dtype = weight.dtype
            wide = weight.quantized_scalers.view(-1, SCALES).float() / weight.quantization_factor.float()[:, None]
            scales = (wide.to(dtype).float() + weight.scaler_mean.float()).to(dtype).float().view(-1)
            four_digits = torch.tensor(TORCHAO_LEVELS, device=scales.device).to(dtype).float()
            return Stored(weight.quantized_data, scales, four_digits, dtype, integers=True)
    return None


def _levels(like: Tensor) -> Tensor:
    return torch.tensor(levels(), dtype=torch.float32, device=like.device)


def _floating(codes: Tensor, largest: Tensor, mean: Tensor) -> Tensor:
    table = torch.tensor(scale_values(), dtype=torch.float32, device=codes.device)
    which = torch.arange(len(codes), device=codes.device) // SCALES
    return table[codes.int()] * largest[which] + mean


def _largest(values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """values in rows of `size`, the last filled up with zeros, and the largest magnitude of each row (rows, 1)."""
    rows = F.pad(values, (0, -len(values) % size)).view(-1, size)
    return rows, rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-38)


class QuantisedReference(ReferenceLayer):
    """y = x W^T + b with W (N, K) as NF4 holds it, rounded to the dtype in which the model stored it.

    To be put in front of a class that says what is added.
    """

    def __init__(self, base: nn.Module, case: Case, name: str) -> None:
        super().__init__(base, case, name)
        self._plain: Tensor | None = self.weight.detach().to(torch.float32, copy=True).reshape(-1)  # before NF4
        blocks, largest = _largest(self._plain, BLOCK)
        codes = torch.bucketize(blocks / largest, _middles(_levels(blocks)), out_int32=True).to(torch.uint8)
        mean = largest.mean()
        rows, most = _largest(largest.view(-1) - mean, SCALES)
        table = torch.tensor(scale_values(), dtype=torch.float32, device=rows.device)
        scale_codes = torch.bucketize(rows / most, _middles(table)).view(-1)[: len(largest)]
        packed = (codes[:, ::2] << 4 | codes[:, 1::2]).view(-1)
        own = Stored(packed, _floating(scale_codes, most.view(-1), mean), _levels(mean), torch.float32)
        self.set_weight(own.weight(*self.weight.shape))

    @torch.no_grad()
    def set_weight(self, weight: Tensor) -> None:
        """W from here on."""
        self.weight.copy_(weight)

    def take_over(self, layer: nn.Module) -> Mapping[str, tuple[float, float, str]]:
        """Each code must be that of the nearest level, each scale the nearest that its format has."""
        plain, self._plain = self._plain, None
        found = read(layer)
        if plain is None or found is None:
            return {"weight": (1.0, 0.5, "is not stored in NF4")}
        blocks, largest = _largest(plain, BLOCK)
        if found.codes.shape != blocks.shape or found.scales.shape != largest.view(-1).shape:
            return {"codes": (float(found.codes.numel()), 0.5, f"are {{error:g}}, not {blocks.numel()}")}
        eps = torch.finfo(found.dtype).eps
        wrong = _further(blocks / largest, found.levels, found.levels[found.codes.int()], max(NEAR, 2 * eps))
        off = (found.scales - largest.view(-1)).abs() / _allowed(largest.view(-1), found)
        self.set_weight(found.weight(*self.weight.shape))
        return {
            "codes": (float(wrong.sum()), 0.5, "has {error:g} codes that are not the nearest level's"),
            "scales": (off.max().item(), 1.0, "has a scale {error:.3g} times as far off as it may be"),
        }


def _middles(table: Tensor) -> Tensor:
    return (table[:-1] + table[1:]) / 2


def _further(values: Tensor, table: Tensor, taken: Tensor, slack: float) -> Tensor:
    """Where `taken` is further from a value than the nearest of the table, by more than the slack."""
    nearest = table[torch.bucketize(values, _middles(table))]
    return (values - taken).abs() > (values - nearest).abs() + slack


def _allowed(largest: Tensor, found: Stored) -> Tensor:
    """How far a decoded scale may be from the largest of its block: as far as the nearest that its format has."""
    less = largest - largest.mean()
    rows, most = _largest(less, SCALES)
    if found.integers:  # 256 steps of most / 128, the last of which is left out; rounded in `dtype` at each operation
        nearest = (most / 128).expand_as(rows).reshape(-1)[: len(largest)]
        return nearest + 4 * torch.finfo(found.dtype).eps * largest
    table = torch.tensor(scale_values(), dtype=torch.float32, device=rows.device)
    at = rows / most
    nearest = ((at - table[torch.bucketize(at, _middles(table))]).abs() + NEAR) * most
    return nearest.view(-1)[: len(largest)] + 4 * torch.finfo(torch.float32).eps * largest
