"""Layers that follow optimizers: columns free of weight decay, and refreshed after every step, with no wiring.

Two hooks common to all torch optimizers, installed when the first layer follows. They act on the layers whose columns
an optimizer holds; layers are held weakly.
"""

import warnings
from typing import Any, Protocol
from weakref import WeakSet

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook


class Follower(Protocol):
    """A PaCALinear, as far as optimizers go."""

    columns: torch.nn.Parameter

    def refresh(self) -> None: ...


_followers: WeakSet[Follower] = WeakSet()
_installed: list[Any] = []


def follow(layer: Follower) -> None:
    """From now on every step of any optimizer that holds the layer's columns refreshes it."""
    _followers.add(layer)
    if not _installed:
        _installed.append(register_optimizer_step_pre_hook(_spare_from_decay))
        _installed.append(register_optimizer_step_post_hook(_refresh))


@torch.compiler.disable  # Python state of many layers: traced, each step would compile anew
def _spare_from_decay(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
    """Decay of a group of columns is set to 0; a step that would decay columns beside other parameters is refused."""
    columns = {id(layer.columns) for layer in _followers}
    for i, group in enumerate(optimizer.param_groups if columns else ()):
        decay = group.get("weight_decay")
        held = [id(p) in columns for p in group["params"]] if decay else []
        if not any(held):
            continue
        if not all(held):
            raise ValueError(
                f"group {i} of the optimizer has weight_decay {decay} and PaCA's columns beside other parameters; "
                "columns hold pretrained weights, which decay would pull to zero. "
                "Build the optimizer from parameter_groups(model, weight_decay)"
            )
        group["weight_decay"] = 0.0
        warnings.warn(
            f"weight_decay {decay} is now 0 for PaCA's columns: they hold pretrained weights, which it would pull to 0",
            stacklevel=2,
        )


@torch.compiler.disable
def _refresh(optimizer: torch.optim.Optimizer, _args: Any, _kwargs: Any) -> None:
    held = {id(p) for group in optimizer.param_groups for p in group["params"]} if _followers else set()
    for layer in _followers:
        if id(layer.columns) in held:
            layer.refresh()
