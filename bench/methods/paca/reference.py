"""What the correctness check holds PaCA against: W, with what trains added to some of its columns."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.case import Case
from bench.methods.reference import ReferenceLayer
from kernels.paca.target_layers import seed_of


class Reference(ReferenceLayer):
    """index (r,): the columns that train, W[:, index] = s * columns. moved (N, r), zero: what is added to these columns
    of W, so that its gradient is theirs. A gradient of all of W has as many operations as the forward.
    """

    index: Tensor

    def __init__(self, base: nn.Module, case: Case, name: str) -> None:
        super().__init__(base, case, name)
        # Which columns train follows from the layer's name: part of the case, the same for every impl.
        generator = torch.Generator().manual_seed(seed_of(name))
        index = torch.randperm(self.weight.shape[1], generator=generator, device="cpu")[: case.rank].sort().values
        self.register_buffer("index", index.to(self.weight.device))
        self.moved = nn.Parameter(torch.zeros_like(self.weight[:, : len(index)]))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + F.linear(x.index_select(-1, self.index), self.moved)

    @property
    def trained(self) -> dict[str, Tensor]:
        return {"columns": self.moved}

    def gradient(self, part: str, dense: Tensor) -> Tensor:
        """W[:, index] = s * columns, so d columns = s * dW[:, index] by the product rule."""
        return self.scale * dense

    @torch.no_grad()
    def load(self, part: str, value: Tensor) -> None:
        """s * columns into W, rounded to the dtype in which the model stores W."""
        live = (self.scale * value.double()).to(self.stored).to(self.weight.dtype)
        self.weight[:, self.index] = live

    def as_built(self) -> Mapping[str, tuple[Tensor, float]]:
        """columns (N, r) = W[:, index] / s; bound: eps of the columns' dtype, one rounding being at most half of it."""
        pretrained = self.weight.detach()[:, self.index].double() / self.scale
        return {"columns": (pretrained, torch.finfo(self.adapter).eps)}
