"""What the correctness check holds PaCA against: W alone, whose gradient holds the columns'."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from bench.case import Case
from bench.methods.reference import ReferenceLayer
from kernels.paca.target_layers import seed_of


class Reference(ReferenceLayer):
    """index (r,): the columns that train, W[:, index] = s * columns."""

    index: Tensor

    def __init__(self, base: nn.Module, case: Case, name: str) -> None:
        super().__init__(base, case, name)
        self.weight.requires_grad_(True)
        # Which columns train follows from the layer's name: part of the case, the same for every impl.
        generator = torch.Generator().manual_seed(seed_of(name))
        index = torch.randperm(self.weight.shape[1], generator=generator, device="cpu")[: case.rank].sort().values
        self.register_buffer("index", index.to(self.weight.device))

    @property
    def trained(self) -> dict[str, Tensor]:
        return {"columns": self.weight}

    def gradient(self, part: str, dense: Tensor) -> Tensor:
        """W[:, index] = s * columns, so d columns = s * dW[:, index] by the product rule."""
        return self.scale * dense[:, self.index]

    @torch.no_grad()
    def load(self, part: str, value: Tensor) -> None:
        """s * columns into W, rounded to the dtype in which the model stores W."""
        live = (self.scale * value.double()).to(self.stored).to(self.weight.dtype)
        self.weight[:, self.index] = live

    def as_built(self) -> Mapping[str, tuple[Tensor, float]]:
        """columns (N, r) = W[:, index] / s; bound: eps of the columns' dtype, one rounding being at most half of it."""
        pretrained = self.weight.detach()[:, self.index].double() / self.scale
        return {"columns": (pretrained, torch.finfo(self.adapter).eps)}
