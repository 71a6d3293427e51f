"""A model with siblings for the tests of groups, and what is observed of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from kernels import LoRALinear, group_siblings, reference
from kernels.runtime import launch
from tests.kernels.kernel_cases import DTYPES, F32
from tests.kernels.kernel_correctness import DEVICE

DTYPE = DTYPES[0]
CLOSE = 1e-5 if DTYPE == F32 else 2e-2
SIZES = {"q": 24, "k": 16, "v": 16}


class Attention(nn.Module):
    """q, k, v that read the same x; out, as wide at its input, reads another."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        for name, n in SIZES.items():
            self.add_module(name, LoRALinear(nn.Linear(32, n, bias=name == "k"), 4, 6, dropout))
        self.out = LoRALinear(nn.Linear(32, 16), 4, 6, dropout)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        other = x if context is None else context
        return torch.cat([self.q(x), self.k(other), self.v(other)], dim=-1)


def attention(dropout: float = 0.0, found: bool = True) -> Attention:
    """Drawn from one seed; found: the forward that finds the siblings has been."""
    torch.manual_seed(0)
    model = Attention(dropout).to(DEVICE, DTYPE)
    for name, parameter in model.named_parameters():
        if name.endswith("lora_b"):
            nn.init.normal_(parameter)
    group_siblings(model)
    if found:
        with torch.no_grad():
            model(inputs())
    launch.counts.clear()
    return model


def inputs(seed: int = 1) -> Tensor:
    return torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(seed)).to(DEVICE, DTYPE)


def passes() -> int:
    """Passes over x since the last call: one of a group, one of each layer that ran alone."""
    count = launch.counts["project_kernel"] + launch.counts["single_pass_kernel"]
    launch.counts.clear()
    return count


def alone(layer: LoRALinear, x: Tensor) -> Tensor:
    """What the layer computes without dropout, in eager PyTorch."""
    options = {"scale": layer.scale, "bias": layer.bias}
    return reference.lora_linear(x, layer.weight, layer.lora_a, layer.lora_b, **options)


def observed(model: Attention, x: Tensor, keep: Tensor | None = None, cast=None, **options) -> dict[str, Tensor]:
    """Output and gradients by name: of the model, or of the reference in `cast` of everything under the mask `keep`."""
    turn = cast or (lambda t: t)
    leaf = turn(x).detach().requires_grad_()
    names = [f"{layer}.{part}" for layer in SIZES for part in ("lora_a", "lora_b")]
    leaves = [model.get_parameter(name) for name in names]
    if cast is None:
        y = model(leaf, **options)
    else:
        leaves = [turn(t).detach().requires_grad_() for t in leaves]
        ys = []
        for i, layer in enumerate(map(model.get_submodule, SIZES)):
            bias = None if layer.bias is None else turn(layer.bias).detach()
            masked = {"dropout_p": layer.dropout, "keep": None if keep is None else keep.to(leaf.device)}
            a, b = leaves[2 * i : 2 * i + 2]
            ys.append(
                reference.lora_linear(leaf, turn(layer.weight).detach(), a, b, scale=layer.scale, bias=bias, **masked)
            )
        y = torch.cat(ys, dim=-1)
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64).to(y.device, y.dtype)
    return {"y": y, **dict(zip(["dx", *names], torch.autograd.grad(y, [leaf, *leaves], dy), strict=True))}
