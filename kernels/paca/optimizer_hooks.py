"""Layers that follow optimizers: columns free of weight decay, and refreshed after every step, with no wiring.

Two hooks common to all torch optimizers, installed when the first layer follows. They act on the layers whose columns
an optimizer holds; layers are held weakly.
"""

import warnings
from typing import Any, Protocol
from weakref import WeakSet

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from ..modules.reasons import some
from .columns import Columns

#: Steps in which others have a gradient after which a layer without one is named. Experts that a router has not chosen
#: have none for a few steps; and a layer whose weight is read raw will never have one, so it is named at once.
PATIENCE = 10


class Follower(Protocol):
    """A PaCALinear, as far as optimizers go."""

    columns: torch.nn.Parameter
    full_name: str
    read_raw: bool
    steps_without_gradient: int | None

    def refresh(self) -> None: ...


_followers: WeakSet[Follower] = WeakSet()
_installed: list[Any] = []


def follow(layer: Follower) -> None:
    """From now on every step of any optimizer that holds the layer's columns refreshes it."""
    _followers.add(layer)
    if not _installed:
        # Disabled, since with Python state of many layers a traced step would compile anew each time; here, since the
        # mark imports torch._dynamo, which takes seconds.
        _installed.append(register_optimizer_step_pre_hook(torch.compiler.disable(_before)))
        _installed.append(register_optimizer_step_post_hook(torch.compiler.disable(_refresh)))


def _held(optimizer: torch.optim.Optimizer) -> list[Follower]:
    """The layers whose columns the optimizer holds."""
    held = {id(p) for group in optimizer.param_groups for p in group["params"]} if _followers else set()
    return [layer for layer in _followers if id(layer.columns) in held]


def _before(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
    layers = _held(optimizer)
    if layers:
        columns = {id(layer.columns) for layer in layers}
        for i, group in enumerate(optimizer.param_groups):
            _spare_from_decay(i, group, columns)
            _keep_foreach(group)
        _name_the_untrained(layers)


def _spare_from_decay(i: int, group: dict[str, Any], columns: set[int]) -> None:
    """Decay of a group of columns is set to 0; a step that would decay columns beside other parameters is refused."""
    decay = group.get("weight_decay")
    held = [id(p) in columns for p in group["params"]] if decay else []
    if not any(held):
        return
    if not all(held):
        raise ValueError(
            f"group {i} of the optimizer has weight_decay {decay} and PaCA's columns beside other parameters; "
            "columns hold pretrained weights, which decay would pull to zero. "
            "Build the optimizer from parameter_groups(model, weight_decay)"
        )
    group["weight_decay"] = 0.0
    warnings.warn(
        f"weight_decay {decay} is now 0 for PaCA's columns: they hold pretrained weights, which it would pull to 0",
        stacklevel=4,
    )


def _keep_foreach(group: dict[str, Any]) -> None:
    """What torch would choose by itself, were columns plain parameters: its default knows no subclass of them."""
    if group.get("foreach", False) is not None or group.get("fused") or group.get("differentiable"):
        return
    if any(isinstance(value, torch.Tensor) for key in ("lr", "betas") for value in _flat(group.get(key))):
        return  # foreach would refuse them
    kinds = (torch.Tensor, torch.nn.Parameter, Columns)
    if all(type(p) in kinds and p.device.type in ("cuda", "xpu") for p in group["params"]):
        group["foreach"] = True


def _flat(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _name_the_untrained(layers: list[Follower]) -> None:
    """One warning for each layer that does not train while others of the same optimizer do."""
    without = [layer for layer in layers if layer.columns.grad is None]
    if len(without) == len(layers):  # LBFGS computes gradients within its step
        return
    raw: list[str] = []
    idle: list[str] = []
    for layer in layers:
        count = layer.steps_without_gradient
        if count is None:
            continue
        if layer.columns.grad is not None:
            layer.steps_without_gradient = None
        elif layer.read_raw or count + 1 == PATIENCE:
            layer.steps_without_gradient = None
            (raw if layer.read_raw else idle).append(layer.full_name or "a PaCALinear")
        else:
            layer.steps_without_gradient = count + 1
    if raw:
        warnings.warn(
            f"the columns of {some(sorted(raw))} get no gradient and do not train: the model reads the weight in place "
            "of calling the layer. Choose other layers with targets=",
            stacklevel=4,
        )
    if idle:
        warnings.warn(
            f"the columns of {some(sorted(idle))} had no gradient in {PATIENCE} steps: the model has not called these "
            "layers (an expert that no token reached, say), or not where gradients are recorded",
            stacklevel=4,
        )


def _refresh(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
    for layer in _held(optimizer):
        layer.refresh()
