"""What trains, and how it is computed: one small file for each (method, impl). Importing this needs no torch."""

from typing import TYPE_CHECKING

from bench.case import Case
from bench.methods.registry import IMPLS, Impl, unsupported

if TYPE_CHECKING:
    from torch import nn

__all__ = ["IMPLS", "Impl", "apply", "note", "unsupported"]


def apply(model: "nn.Module", case: Case) -> "list[tuple[str, nn.Parameter]]":
    """Makes `model` train by the case's method and impl, in place; returns what trains, by its name in the model.

    model: at level model a causal language model of transformers; at levels block and linear a module that holds the
    block as its child `block`, the linear layer as its child `layer`. Everything not returned is frozen.
    LoRA's B is zero afterwards, as in training. Raises ValueError where the case names no layer of the model.
    """
    return IMPLS[case.method][case.impl].load()(model, case)


def note(model: "nn.Module", case: Case) -> str | None:
    """What the rows of the case should say beside their numbers: graph breaks, a rounding loss. Ask after a call."""
    remark = IMPLS[case.method][case.impl].remark()
    return None if remark is None else remark(model, case)
