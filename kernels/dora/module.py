"""DoRALinear: a frozen linear layer with a LoRA branch and a trained norm of every row, as a module."""

import torch
from torch import Tensor, nn

from ..lora.module import LoRALinear
from . import reference
from .linear import dora_linear


class DoRALinear(LoRALinear):
    """y = g * (x W^T + s x A^T B^T) + b, g = magnitude / ||W + s B A|| by row, s = alpha / rank.

    base, lora_a and lora_b are LoRALinear's, dtypes too. magnitude (out_features,) starts as the norms of W's rows,
    taken in fp32 and rounded to the adapters' dtype: in 16 bits g is 1 to within their rounding then. Dropout, in
    training mode, acts on the input of what g adds to the layer, which takes a second product with W: no kernel
    computes that, torch's operations do.
    """

    def __init__(
        self,
        base: nn.Module,
        rank: int,
        alpha: float,
        dropout: float = 0.0,
        adapter_dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(base, rank, alpha, dropout, adapter_dtype)
        weight = self.weight.detach()
        wide = torch.promote_types(weight.dtype, torch.float32)
        norms = torch.linalg.vector_norm(weight, dim=1, dtype=wide)
        self.magnitude = nn.Parameter(norms.to(self.lora_a.dtype))

    def forward(self, x: Tensor) -> Tensor:
        """x (..., K) -> y (..., N)."""
        parts = self.parts()
        if parts is None:
            return torch.nn.functional.linear(x, self.weight, self.bias)
        weight, bias, a, b, scale, p = parts
        if p > 0.0:
            return reference.dora_linear(x, weight, a, b, self.magnitude, scale=scale, bias=bias, dropout_p=p)
        return dora_linear(x, weight, a, b, self.magnitude, scale=scale, bias=bias)

    @torch.no_grad()
    def merge(self) -> None:
        """Puts g * (W + s B A) in the weight's place (in fp32, rounded once); nothing where it is merged already."""
        if self.merged:
            return
        self.pretrained = self.stored_weight.detach().clone()
        whole = self.weight.float() + self.scale * (self.lora_b.float() @ self.lora_a.float())
        norm = torch.linalg.vector_norm(whole, dim=1)
        self.weight.copy_((self.magnitude / norm)[:, None] * whole)
