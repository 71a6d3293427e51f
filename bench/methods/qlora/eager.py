"""qlora, impl eager: LoRA's textbook form beside a weight in NF4, quantised and dequantised by plain PyTorch."""

from torch import Tensor, nn

from bench.case import Case
from bench.methods.adapt import Trained, adapt_lora
from bench.methods.lora.eager import EagerLoRALinear
from bench.methods.qlora.layer import NF4Linear


class EagerQLoRALinear(EagerLoRALinear):
    """y = base(x) + s * drop(x) A^T B^T, where `base` is an NF4Linear. A and B have the dtype that W had."""

    def __init__(self, base: nn.Module, *arguments: object) -> None:
        super().__init__(base, *arguments)  # type: ignore[arg-type]  # as LoRALinear's
        self.base, self.transposed = NF4Linear(base), False

    @property
    def stored_weight(self) -> Tensor:
        """The dequantised weight (N, K), made anew at each call."""
        return self.base.weight  # type: ignore[return-value]

    def merge(self) -> None:
        raise NotImplementedError("a 4-bit weight cannot take in a branch: dequantise() gives a layer that can")


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains A (r, K) and B (N, r) of every target layer."""
    return adapt_lora(model, case, EagerQLoRALinear)
