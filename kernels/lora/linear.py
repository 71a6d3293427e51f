"""lora_linear, the public function."""

from torch import Tensor

from . import reference


def lora_linear(
    x: Tensor,
    weight: Tensor,
    lora_a: Tensor,
    lora_b: Tensor,
    *,
    scale: float,
    bias: Tensor | None = None,
    dropout_p: float = 0.0,
    seed: int | None = None,
) -> Tensor:
    """y = x W^T + bias + scale * drop(x) A^T B^T.

    x (..., K), weight (N, K), lora_a (r, K), lora_b (N, r), bias (N,); returns (..., N) in the dtype of x.
    """
    return reference.lora_linear(
        x, weight, lora_a, lora_b, scale=scale, bias=bias, dropout_p=dropout_p, seed=seed
    )
