"""bitfit, impl eager: each target layer's bias is a parameter, which its one product adds, as it does any bias."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.case import Case
from bench.methods.adapt import Trained, adapt, adapter_dtype


class BitFitLinear(nn.Module):
    """y = x W^T + b; base: nn.Linear or Conv1D, frozen, whose bias (N,) becomes b, or zeros where it has none.

    b may be wider than W: it is rounded to x's dtype, since one product takes operands of one dtype.
    """

    def __init__(self, base: nn.Module, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.base = base
        self.conv1d = not isinstance(base, nn.Linear)  # stores W as (K, N)
        bias = getattr(base, "bias", None)
        if bias is None:
            bias = self.weight.new_zeros(self.weight.shape[0])
        base.register_parameter("bias", None)
        self.bias = nn.Parameter(bias.detach().to(dtype or self.weight.dtype))

    @property
    def weight(self) -> Tensor:
        """(N, K), whatever the base's own layout."""
        stored = self.base.get_parameter("weight")
        return stored.t() if self.conv1d else stored

    def forward(self, x: Tensor) -> Tensor:
        """x (..., K) -> y (..., N)."""
        return F.linear(x, self.weight, self.bias.to(x.dtype))


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains b (N,) of every target layer."""
    dtype = adapter_dtype(case)
    return adapt(model, case, lambda _, layer: BitFitLinear(layer, dtype))
