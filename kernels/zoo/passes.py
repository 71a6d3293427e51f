"""One pass of a model: its floating outputs, a loss made of all of them, gradients; and how two passes compare."""

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-9}


def outputs(model: nn.Module, inputs: Mapping[str, Any]) -> list[Tensor]:
    """Every floating tensor that the model returns, caches left out; the same random numbers in every call."""
    random.seed(0)
    np.random.seed(0)  # transformers' masks of speech come from this generator
    torch.manual_seed(0)
    return list(_tensors(model(**inputs)))


def _tensors(found: Any) -> Any:
    if isinstance(found, Tensor):
        if found.is_floating_point() and found.numel():
            yield found
    elif isinstance(found, Mapping):
        for value in found.values():
            yield from _tensors(value)
    elif isinstance(found, list | tuple):
        for value in found:
            yield from _tensors(value)


def loss_of(found: list[Tensor]) -> Tensor:
    """A fixed random projection of every output that depends on a parameter, so that each has a gradient; or zero."""
    generator = torch.Generator().manual_seed(1)
    parts = []
    for value in found:
        # Drawn for each output: which of them depend on a parameter is another set where few parameters train.
        direction = torch.randn(value.shape, generator=generator).to(value.dtype)
        if value.requires_grad:
            parts.append((torch.where(value.isfinite(), value, 0.0) * direction).mean())
    return torch.stack(parts).sum() if parts else torch.zeros((), requires_grad=True)


def gradients(model: nn.Module, inputs: Mapping[str, Any]) -> tuple[list[Tensor], dict[str, Tensor]]:
    """The outputs, and the gradients of all that requires one, by name; buffers are put back afterwards."""
    model.zero_grad()
    before = {name: value.clone() for name, value in model.named_buffers()}
    found = outputs(model, inputs)
    loss_of(found).backward()
    put_buffers(before, model)
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad and p.grad is not None}
    model.zero_grad()
    return [value.detach() for value in found], grads


@torch.no_grad()
def put_buffers(known: Mapping[str, Tensor], model: nn.Module) -> None:
    """Gives the model's buffers these values: a training pass changes running statistics, as no adapter does."""
    for name, value in model.named_buffers():
        if name in known and known[name].shape == value.shape:
            value.copy_(known[name])


def same_outputs(found: list[Tensor], expected: list[Tensor]) -> bool:
    """Whether two passes agree within rounding of their dtype."""
    if [value.shape for value in found] != [value.shape for value in expected]:
        return False
    return all(_close(a, b, 0.0) for a, b in zip(found, expected, strict=True))


def same_gradients(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """The name of the first gradient that differs, None where all agree. No gradient and one of zeros are the same."""
    largest = max((float(value.abs().max()) for value in expected.values() if value.numel()), default=0.0)
    for name in dict.fromkeys((*expected, *found)):
        nothing = torch.zeros_like(expected[name] if name in expected else found[name])
        a, b = found.get(name, nothing), expected.get(name, nothing)
        lost = bool(a.any()) != bool(b.any()) and float((a - b).abs().max()) > 1e-6 * largest  # small, but no noise
        if lost or not _close(a, b, largest):
            return name
    return None


def _close(a: Tensor, b: Tensor, floor: float) -> bool:
    """|a - b| at most the tolerance of the largest value, and 1/100 of it of `floor`: sums that cancel are noise."""
    if not torch.equal(a.isfinite(), b.isfinite()):
        return False
    a, b = (torch.where(value.isfinite(), value, 0.0) for value in (a, b))
    tolerance = TOLERANCE[b.dtype]
    allowed = tolerance * (float(b.abs().max()) + floor / 100)
    return float((a - b).abs().max()) <= allowed
