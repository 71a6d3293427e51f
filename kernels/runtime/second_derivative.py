"""Refusing second derivatives.

torch's once_differentiable refuses them only where the incoming gradient itself requires grad: after
`grad(y.sum(), x, create_graph=True)` a term in dx would silently count as a constant, although dx depends on A and B.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

Backward = Callable[..., tuple[Tensor | None, ...]]


class _Refuse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchor: Tensor, gradient: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        raise RuntimeError("lora_linear and paca_linear have no second derivative: they cannot be differentiated twice")


def no_second_derivative(backward: Backward) -> Backward:
    """backward, whose gradients raise a RuntimeError when they are differentiated themselves."""

    @wraps(backward)
    def run(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if not torch.is_grad_enabled():
            return backward(ctx, *gradients)
        with torch.no_grad():
            results = backward(ctx, *gradients)
        anchor = torch.zeros((), requires_grad=True)
        return tuple(None if result is None else _Refuse.apply(anchor, result) for result in results)

    return run
