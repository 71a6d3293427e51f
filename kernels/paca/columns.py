"""Columns: a parameter of which every change can be seen."""

from typing import Any

import torch
from torch import Tensor, nn


class Columns(nn.Parameter):
    """nn.Parameter whose _version tells of writes through .data too.

    torch's own `.data` hands out an alias with a version counter of its own, so that `p.data -= lr * p.grad`, an EMA's
    `p.data.copy_()` and `p.data = t` go unseen. Here the alias shares the counter, as detach()'s does. Nothing saves
    columns for backward, so no autograd check trips over it.

    written: what the layer noted on it when it wrote it into its weight. Other data has no note; another parameter in
    its place, or contents that torch.utils.swap_tensors put there with their attributes, have another one.
    """

    written: tuple[int] | None = None

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if value.is_inference():  # it would make an inference tensor of the parameter, which has no versions
            with torch.inference_mode(False):
                value = value.clone()
        _set_data(self, value)
        self.written = None


_set_data: Any = torch.Tensor.data.__set__  # type: ignore[attr-defined]


def watch(parameter: nn.Parameter) -> None:
    """Makes Columns of a plain parameter, in place: an optimizer may hold it already."""
    if type(parameter) is nn.Parameter:
        parameter.__class__ = Columns
