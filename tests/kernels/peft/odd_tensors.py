"""x of every kind, and weights that are computed: situations of situations.py, as functions of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from tests.kernels.peft.peft_models import FEATURES, inputs, observe


def first(model: nn.Module) -> Any:
    return model.base_model.model.first


KINDS_OF_X: dict[str, Callable[[], Any]] = {
    "0-d": lambda: torch.tensor(1.0),
    "1-d": lambda: inputs()[0, 0],
    "4-d": lambda: inputs()[None],
    "no rows": lambda: inputs()[:, :0],
    "no width": lambda: inputs()[..., :0],
    "too wide": lambda: torch.randn(3, FEATURES + 1),
    "transposed": lambda: torch.randn(FEATURES, 5).t(),
    "expanded": lambda: inputs()[0, :1].expand(6, FEATURES),
    "every other": lambda: torch.randn(4, 2 * FEATURES)[:, ::2],
    "whole numbers": lambda: inputs().long(),
    "float64": lambda: inputs().double(),
    "bfloat16": lambda: inputs().bfloat16(),
    "complex": lambda: inputs().to(torch.complex64),
    "conjugated part": lambda: torch.complex(inputs(), inputs()).conj().imag,
    "sparse": lambda: inputs()[0].relu().to_sparse(),
    "sparse rows": lambda: inputs()[0].relu().to_sparse_csr(),
    "mkldnn": lambda: inputs().to_mkldnn(),
    "nested": lambda: torch.nested.nested_tensor([inputs()[0], inputs()[1, :3]]),
    "jagged": lambda: torch.nested.nested_tensor([inputs()[0], inputs()[1, :3]], layout=torch.jagged),
    "quantised": lambda: torch.quantize_per_tensor(inputs(), 0.1, 0, torch.quint8),
    "meta": lambda: inputs().to("meta"),
    "a parameter": lambda: nn.Parameter(inputs()),
    "a list": lambda: inputs().tolist(),
    "nothing": lambda: None,
}


def of_x(make: Callable[[], Any]) -> Callable[[nn.Module], Any]:
    def act(model: nn.Module) -> Any:
        y = first(model)(make())
        if y.is_nested:
            return [part.detach() for part in y.unbind()]
        return [tuple(y.shape), str(y.dtype), str(y.layout)] if y.is_meta else y.to_dense()

    return act


ODD_X = {f"x: {name}": of_x(make) for name, make in KINDS_OF_X.items()}


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def plain_bias(base: nn.Module) -> None:
    bias = base.bias
    del base.bias
    base.bias = bias.detach() + 1


WAYS: dict[str, Callable[[Any], Any]] = {
    "parametrized weight": lambda part: parametrize.register_parametrization(part, "weight", Doubled()),
    "parametrized bias": lambda part: parametrize.register_parametrization(part, "bias", Doubled()),
    "weight_norm": nn.utils.parametrizations.weight_norm,
    "weight_norm by hooks": nn.utils.weight_norm,
    "spectral_norm by hooks": lambda part: nn.utils.spectral_norm(part.eval()),
    "pruned weight": lambda part: prune.l1_unstructured(part, "weight", 0.5),
    "pruned bias": lambda part: prune.l1_unstructured(part, "bias", 0.5),
    "pruned for good": lambda part: prune.remove(prune.l1_unstructured(part, "weight", 0.5), "weight"),
    "plain bias": plain_bias,
}


def computed(part: str, change: Callable[[Any], Any]) -> Callable[[nn.Module], Any]:
    def act(model: nn.Module) -> Any:
        layer = first(model)
        change(layer.base_layer if part == "base" else getattr(layer, part)["default"])
        return [value for name, value in sorted(observe(model, inputs()).items())]

    return act


COMPUTED_WEIGHTS = {
    f"{name} of {part}": computed(part, change)
    for name, change in WAYS.items()
    for part in ("base", "lora_A", "lora_B")
    if part == "base" or "bias" not in name
}
