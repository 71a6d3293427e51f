"""dora_linear, the public function."""

from torch import Tensor

from .reference import dora_linear as by_reference


def dora_linear(
    x: Tensor,
    weight: Tensor,
    lora_a: Tensor,
    lora_b: Tensor,
    magnitude: Tensor,
    *,
    scale: float,
    bias: Tensor | None = None,
    scheme: str | None = None,
) -> Tensor:
    """As the reference of the same name."""
    return by_reference(x, weight, lora_a, lora_b, magnitude, scale=scale, bias=bias)
