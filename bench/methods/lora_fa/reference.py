"""What the correctness check holds LoRA-FA against."""

from torch import Tensor, nn

from bench.case import Case
from bench.methods.reference import BranchReference


class Reference(BranchReference):
    """A is the implementation's, as it drew it, and stays; B trains."""

    drawn = ("lora_a",)

    def __init__(self, base: nn.Module, case: Case, name: str) -> None:
        super().__init__(base, case, name)
        self.lora_a.requires_grad_(False)

    @property
    def trained(self) -> dict[str, Tensor]:
        return {"lora_b": self.lora_b}
