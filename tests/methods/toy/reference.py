"""What the correctness check holds toy against."""

import torch
from bench.methods.toy.eager import draw_a
from torch import Tensor, nn

from bench.case import Case
from bench.methods.reference import BranchReference


class Reference(BranchReference):
    """LoRA with A from the layer's name; B alone trains."""

    def __init__(self, base: nn.Module, case: Case, name: str) -> None:
        super().__init__(base, case, name)
        with torch.no_grad():
            self.lora_a.copy_(draw_a(name, *self.lora_a.shape))
        self.lora_a.requires_grad_(False)

    @property
    def trained(self) -> dict[str, Tensor]:
        return {"lora_b": self.lora_b}
