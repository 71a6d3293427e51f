"""PaCA's independent reference: a dense layer of which some columns train."""

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D


class DenseColumns(nn.Module):
    """The weight itself, of which the columns `index` train: ordinary autograd through index_copy."""

    def __init__(self, base: nn.Module, index: Tensor) -> None:
        super().__init__()
        self.base = base
        self.index = index
        self.live = nn.Parameter(self._logical().detach()[:, index].clone())

    def _logical(self) -> Tensor:
        weight = self.base.get_parameter("weight")
        return weight.t() if isinstance(self.base, Conv1D) else weight

    def weight(self) -> Tensor:
        return self._logical().detach().index_copy(1, self.index, self.live)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight(), self.base.bias)
