"""qlora, impl torchao: LoRA's textbook form beside torchao's NF4Tensor.

It is QLoRA's NF4 but in two points: scales are 8-bit integers over their own largest, and quantising and dequantising
compute in the weight's dtype throughout, levels rounded to four digits. PEFT has no layer of its own for it: what it
serves of torchao is 8-bit (peft/tuners/lora/torchao.py, 0.21).
"""

from torch import nn
from torchao.quantization import NF4Tensor

from bench.case import Case
from bench.methods.adapt import Trained, adapt_lora
from bench.methods.lora.eager import EagerLoRALinear
from bench.methods.qlora.format import BLOCK, SCALES
from bench.methods.qlora.layer import parts_of


class TorchaoQLoRALinear(EagerLoRALinear):
    """y = base(x) + s * drop(x) A^T B^T; `base` is an nn.Linear whose weight is an NF4Tensor."""

    def __init__(self, base: nn.Module, *arguments: object) -> None:
        super().__init__(quantised(base), *arguments)  # type: ignore[arg-type]  # as LoRALinear's

    def merge(self) -> None:
        raise NotImplementedError("a 4-bit weight cannot take in a branch")


def quantised(layer: nn.Module) -> nn.Linear:
    """nn.Linear or Conv1D as an nn.Linear with its weight in NF4, frozen."""
    weight, bias = parts_of(layer)
    n, k = weight.shape
    found = nn.Linear(k, n, bias=False, device="meta", dtype=weight.dtype)
    packed = NF4Tensor.from_tensor(weight, BLOCK, SCALES)
    found.weight = nn.Parameter(packed, requires_grad=False)
    found.register_parameter("bias", bias)
    return found.train(layer.training)


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains A (r, K) and B (N, r) of every target layer."""
    return adapt_lora(model, case, TorchaoQLoRALinear)
