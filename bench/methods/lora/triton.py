"""lora, impl triton: the library's own LoRALinear, whose GEMM and branch run in fused kernels."""

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from bench.case import Case
from bench.methods.adapt import Trained, adapt_lora, replace, trained
from kernels import LoRALinear, group_siblings, lora_linear_group


class LoRASiblings(nn.ModuleDict):
    """LoRALinear layers that read the same x, in one call: x is read once for all branches, dX summed by the GEMMs."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """x (..., K) -> a y (..., N_i) for each."""
        layers = cast(list[LoRALinear], list(self.values()))
        return lora_linear_group(
            x,
            [layer.weight for layer in layers],
            [layer.lora_a for layer in layers],
            [layer.lora_b for layer in layers],
            scale=layers[0].scale,
            biases=[layer.bias for layer in layers],
            dropout_p=layers[0].dropout if self.training else 0.0,
        )


def apply(model: nn.Module, case: Case) -> Trained:
    """Trains A (r, K) and B (N, r) of every target layer; siblings (q, k, v; gate, up) run as one group."""
    return fused(model, case)


def fused(model: nn.Module, case: Case, frozen: Sequence[str] = ()) -> Trained:
    """Layers as adapt_lora makes them, siblings as groups.

    A weight whose layer alone is fastest as one cuBLAS GEMM, as far as is known, gets room for B beside it.
    """
    adapt_lora(model, case, LoRALinear, frozen)
    if len(case.linear_layers) > 1:
        siblings = model.get_submodule("layer")
        replace(model, "layer", LoRASiblings(dict(siblings.named_children())).train(siblings.training))
    else:
        for layer in model.modules():
            if isinstance(layer, LoRALinear):
                layer.prepare(case.tokens)
        group_siblings(model)
    return trained(model)
