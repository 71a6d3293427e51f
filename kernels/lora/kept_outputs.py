"""What a group computed for siblings that have not been called yet, and when it may be handed out."""

import weakref
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime import launch
from .arguments import autocast_dtype

# weight (N, K), bias, A (r, K), B (N, r), scale, dropout_p
Parts = tuple[Tensor, Tensor | None, Tensor, Tensor, float, float]


class Kept:
    """Outputs that wait for their layers' calls. They go when x does, and when a backward through them begins: it frees
    what the others' would need."""

    def __init__(self, x: Tensor, recomputed: bool) -> None:
        self.x: weakref.ref[Tensor] | None = weakref.ref(x, self.drop)
        self.around, self.hooks = _around(x), saving_hooks()
        self.recomputed = recomputed  # in a backward: checkpointing may stop between the calls
        self.left_over = False
        self.outputs: dict[int, tuple[Tensor, _State]] = {}

    def keep(self, layers: list[Any], ys: tuple[Tensor, ...], parts: list[Parts]) -> None:
        """Each layer's y, computed with these parts."""
        self.outputs = {id(layer): (y, _State(one)) for layer, y, one in zip(layers, ys, parts, strict=True)}

    def take(self, layer: nn.Module, x: Tensor, parts: Parts) -> Tensor | None:
        """The layer's output, once, if all is as it was when it was computed."""
        waiting = self.outputs.get(id(layer))
        if waiting is None or self.x is None or self.x() is not x or self.around != _around(x):
            return None
        if self.hooks is not saving_hooks():  # a checkpointed region would find other tensors when it is recomputed
            return None
        y, state = waiting
        if watched(layer) or not state.is_that_of(parts):
            return None
        self.outputs.pop(id(layer), None)
        return y

    def drop(self, _: Any = None) -> None:
        """Nothing is handed out from now on; left_over tells whether something would have been."""
        self.left_over = self.left_over or bool(self.outputs)
        self.outputs = {}
        self.x = self.hooks = None


def saving_hooks() -> Any:
    """What packs tensors that autograd saves now, None for nothing; checkpointing has one for each of its regions."""
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return None if hooks is None else hooks[0]


class _State:
    """A layer's parts as they were when its output was computed: tensors by identity and version."""

    def __init__(self, parts: Parts) -> None:
        self.tensors = [None if t is None else (_itself(t), *_version(t)) for t in parts[:4]]
        self.numbers = parts[4:]

    def is_that_of(self, parts: Parts) -> bool:
        if parts[4:] != self.numbers:
            return False
        return all(
            then is None if t is None else then is not None and _itself(t) is then[0] and _version(t) == then[1:]
            for t, then in zip(parts[:4], self.tensors, strict=True)
        )


def _around(x: Tensor) -> tuple[Any, ...]:
    """What must not differ between the siblings' calls, beside the layers' own parts."""
    autocast = autocast_dtype(x.device)
    stream = (launch.raw_stream(x.device.index), torch.cuda.is_current_stream_capturing()) if x.is_cuda else None
    return x._version, x.requires_grad, torch.is_grad_enabled(), torch.is_inference_mode_enabled(), autocast, stream


def _itself(t: Tensor) -> Tensor:
    """The parameter whose transpose t may be: each call makes that one anew."""
    return t if t._base is None else t._base


def _version(t: Tensor) -> tuple[Any, ...]:
    return t._version, t.data_ptr(), t.requires_grad  # .data is set without a new version


def watched(layer: nn.Module) -> bool:
    """Whether hooks see or change the layer's input, or bring its parameters only when it is called."""
    return bool(layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks)
