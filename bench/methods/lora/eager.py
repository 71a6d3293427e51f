"""lora, impl eager: the textbook. Two small GEMMs beside the frozen one (Hu et al., 2021, equation 3)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.case import Case
from bench.methods.adapt import Trained, adapt_lora
from kernels import LoRALinear


class EagerLoRALinear(LoRALinear):
    """y = base(x) + s * drop(x) A^T B^T, one operator after the other, in the order of PEFT."""

    def forward(self, x: Tensor) -> Tensor:
        """x (..., K) -> y (..., N). Without autocast, adapters wider than x compute in their own dtype, as in PEFT."""
        y = self.base(x)  # nn.Linear or Conv1D, each in its own layout
        if self.merged:
            return y
        if not torch.is_autocast_enabled(x.device.type):
            x = x.to(self.lora_a.dtype)
        s = F.linear(F.dropout(x, self.dropout, self.training), self.lora_a)
        return (y + self.scale * F.linear(s, self.lora_b)).to(y.dtype)


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains A (r, K) and B (N, r) of every target layer."""
    return adapt_lora(model, case, EagerLoRALinear)
