"""What the correctness check holds DoRA against."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.case import Case
from bench.methods.reference import BranchReference


class Reference(BranchReference):
    """y = x W^T + b + (g - 1) drop(x) W^T + g s (drop(x) A^T) B^T, g = m / ||W + s B A|| by row, with W + s B A dense.

    magnitude (N,) starts as the norms of W's rows. The norm is a constant to autograd (Liu et al., 2024, section 4.3).
    Without dropout this is y = g (x W^T + s x A^T B^T) + b; the order is that of PEFT, whose rounding in 16 bits is
    what a plain implementation achieves.
    """

    def __init__(self, base: nn.Module, case: Case, name: str) -> None:
        super().__init__(base, case, name)
        self.magnitude = nn.Parameter(self._norms_of_weight().to(self.adapter))

    def _norms_of_weight(self) -> Tensor:
        return torch.linalg.vector_norm(self.weight.detach(), dim=1, dtype=torch.float64)

    @torch.no_grad()
    def _norms(self, dtype: torch.dtype) -> Tensor:
        update = (self.lora_b.to(dtype) @ self.lora_a.to(dtype)).to(dtype)  # autocast multiplies in 16 bits
        return torch.linalg.vector_norm(self.weight.to(dtype) + self.scale * update, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.base(x)
        g = self.magnitude / self._norms(x.dtype)
        if self.keep is None:
            product = y if self.bias is None else y - self.bias
        else:
            x = x * (self.keep.to(x.dtype) / (1.0 - self.dropout))  # 1 / (1 - p) is rounded first, as F.dropout does
            product = F.linear(x, self.weight)
        branch = F.linear(F.linear(x, self.lora_a.to(x.dtype)), self.lora_b.to(x.dtype))
        return (y + ((g - 1) * product + g * branch * self.scale)).to(y.dtype)

    @property
    def trained(self) -> dict[str, Tensor]:
        return {**super().trained, "magnitude": self.magnitude}

    def as_built(self) -> Mapping[str, tuple[Tensor, float]]:
        """Bound: eps of the weight's dtype, in which PEFT takes the norm, or of the magnitude's; in fp32 times sqrt(K),
        for the order of the sum."""
        dtype = min((self.stored, self.adapter), key=lambda dtype: dtype.itemsize)
        eps = torch.finfo(dtype).eps
        bound = eps if dtype.itemsize == 2 else eps * self.weight.shape[1] ** 0.5
        return {"magnitude": (self._norms_of_weight(), bound)}

    @torch.no_grad()
    def draw(self, values: Mapping[str, Tensor], share: float) -> None:
        """Magnitudes too, 0.3 about the norm: at g = 1 the norm and half of the gradients would not show."""
        super().draw(values, share)
        magnitude = values["magnitude"]
        drawn = torch.randn(magnitude.shape, dtype=torch.float32, device=magnitude.device)
        magnitude.mul_(1.0 + 0.3 * drawn)

    @torch.no_grad()
    def masked(self, dy: Tensor) -> Tensor:
        g = self.magnitude / self._norms(self.weight.dtype)
        return ((g - 1) * dy) @ self.weight + super().masked(g * dy)

    @torch.no_grad()
    def for_masks(self, values: Mapping[str, Tensor]) -> None:
        """g = 1.25: x W^T is dropped too, and no element of the branch is near minus what that adds."""
        wide = {part: values[part].double() for part in ("lora_a", "lora_b")}
        whole = self.weight.double() + self.scale * (wide["lora_b"] @ wide["lora_a"])
        values["magnitude"].copy_(1.25 * torch.linalg.vector_norm(whole, dim=1))
