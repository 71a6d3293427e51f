"""dora, impl eager: the textbook in the order of PEFT, with W + s B A as a tensor (Liu et al., 2024, equation 5)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.case import Case
from bench.methods.adapt import Trained, adapt_lora
from kernels import DoRALinear


class EagerDoRALinear(DoRALinear):
    """One operator after the other; the norm is a constant to autograd (section 4.3 of the paper)."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., K) -> y (..., N). Without autocast, adapters wider than x compute in their own dtype, as in PEFT."""
        y = self.base(x)  # nn.Linear or Conv1D, each in its own layout
        if self.merged:
            return y
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.lora_a.dtype)
        weight = self.weight.to(x.dtype)
        with torch.no_grad():  # PEFT has B A from products with the identity, which FSDP wants
            update = (self.lora_b @ self.lora_a).to(x.dtype)
            norm = torch.linalg.norm(weight + self.scale * update, dim=1).to(weight.dtype)
        g = self.magnitude / norm
        if self.dropout > 0.0 and self.training:
            x = F.dropout(x, self.dropout)
            product = F.linear(x, weight)
        else:
            product = y if self.bias is None else y - self.bias
        branch = F.linear(F.linear(x, self.lora_a), self.lora_b)
        return (y + ((g - 1) * product + g * branch * self.scale)).to(y.dtype)


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains A (r, K), B (N, r) and the magnitude (N,) of every target layer."""
    return adapt_lora(model, case, EagerDoRALinear)
