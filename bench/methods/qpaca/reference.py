"""What the correctness check holds QPaCA against: W as NF4 holds it, but for the columns that train."""

import torch
from torch import Tensor

from bench.methods.paca.reference import Reference as PaCAReference
from bench.methods.qlora.quantised_reference import QuantisedReference


class Reference(QuantisedReference, PaCAReference):
    """Live columns are those of W before it was quantised, in the dtype in which the model stored W."""

    @torch.no_grad()
    def set_weight(self, weight: Tensor) -> None:
        live = self.weight[:, self.index].clone()
        super().set_weight(weight)
        self.weight[:, self.index] = live
