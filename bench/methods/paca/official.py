"""paca, impl official: the live columns are copied into the weight on every forward, as its authors' code does.

Theirs copies on odd forwards only, so that a forward in between sees the columns of an earlier step; here every forward
copies. It keeps x[:, index] for backward, as theirs does.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from bench.case import Case
from bench.methods.adapt import Trained, adapt_paca
from bench.methods.paca.eager import EagerPaCALinear


class OfficialPaCALinear(EagerPaCALinear):
    """y = base(x), after W[:, index] = s * columns. No refresh is due."""

    refresh_due: ClassVar[bool] = False

    def forward(self, x: Tensor) -> Tensor:
        """x (..., K) -> y (..., N)."""
        with torch.no_grad():
            live = (self.scale * self.columns).to(self.stored_weight.dtype)
            # Through .data, as theirs: autograd would take the W that an earlier forward saved for changed, while what
            # is written between two steps is always the same.
            self.weight.data.index_copy_(1, self.index, live)
        return super().forward(x)


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains `columns` (N, r) of every target layer."""
    return adapt_paca(model, case, OfficialPaCALinear)
