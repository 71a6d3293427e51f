"""What the correctness check holds BitFit against."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.case import Case
from bench.methods.reference import ReferenceLayer


class Reference(ReferenceLayer):
    """y = x W^T + b with b (N,) trained: the layer's own, or zeros where it has none."""

    drawn = ("bias",)

    def __init__(self, base: nn.Module, case: Case, name: str) -> None:
        super().__init__(base, case, name)
        own = self.weight.new_zeros(self.weight.shape[0]) if self.bias is None else self.bias
        self.bias = nn.Parameter(own.to(self.adapter, copy=True))

    def base(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        return F.linear(x, self.weight, self.bias.to(x.dtype))

    @property
    def trained(self) -> dict[str, Tensor]:
        assert self.bias is not None
        return {"bias": self.bias}

    def as_built(self) -> Mapping[str, tuple[Tensor, float]]:
        """The layer's own bias, rounded at most once."""
        assert self.bias is not None
        return {"bias": (self.bias.detach().clone(), torch.finfo(self.stored).eps)}
