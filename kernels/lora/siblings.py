"""Siblings: layers that read the same x (q, k, v; gate, up) run as one group, though a model calls them one by one.

Which layers they are is found out. Alike layers of one parent share a Siblings, which watches one forward, where each
runs alone: those that get the same tensor one after the other are a group from then on. The first called with x
computes all of them and keeps the others' outputs, each until its layer is called with the same x.
"""

import threading
import weakref
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime import launch
from .group import together
from .module import LoRALinear

# weight (N, K), bias, A (r, K), B (N, r), scale, dropout_p
Parts = tuple[Tensor, Tensor | None, Tensor, Tensor, float, float]

#: A group whose outputs were left over is one whose layers are called otherwise by now. Two in a row give it up, as
#: does every other one; an exception now and then does not.
LEFT_OVER, PICKED_UP, GIVE_UP = 2, 1, 4


def group_siblings(model: nn.Module) -> None:
    """Lets the LoRALinear layers of model that read the same x run as groups: one pass over x for all of them.

    Candidates stand in one parent and have the same in_features. Which of them are siblings is found out in the first
    forward after this call, where each still runs alone: they get the same x, and agree in dropout, scale and dtypes.
    Parameters, names, state_dict and what the layers compute do not change, but for dropout: siblings share one mask,
    where layers alone draw one each. A call runs alone where anything differs between the siblings' calls (x, autocast,
    grad mode, a parameter, the CUDA stream), where a layer has hooks that see its input, under torch.compile, in
    inference mode, and with dropout under no_grad, which is how reentrant checkpointing calls. Layers inside
    non-reentrant checkpointing become groups after the first optimizer step. A copy of the model finds its own groups.
    """
    share_among(model, LoRALinear, Siblings)


def share_among(model: nn.Module, kind: Any, make: "type[Siblings]") -> None:
    """Gives layers of class `kind` that stand in one parent, are as wide at their input and no group yet what they
    need to find their siblings."""
    for parent in model.modules():
        alike: dict[int, list[Any]] = defaultdict(list)
        children: Iterable[Any] = parent.children()
        for child in children:
            if isinstance(child, kind) and not (child.siblings and child.siblings.found):
                alike[child.in_features].append(child)
        for layers in alike.values():
            if len(layers) > 1:
                _share(layers, make())


def _share(layers: Sequence[nn.Module], siblings: "Siblings | None") -> None:
    """Each of the layers asks `siblings` from now on."""
    for layer in layers:
        layer.__dict__["siblings"] = siblings


class Siblings:
    """What layers that may be siblings share: it watches them while it has no members, and runs its members together.

    A layer asks output() at each call. What is kept between the calls belongs to a thread. Layers are held weakly, and
    a copy or a pickle is empty: the copied layers are watched anew.

    Checkpointing that recomputes must find what forward had: as many saved tensors, and the same masks. So a call whose
    saved tensors go to hooks, as in non-reentrant checkpointing, takes up what was found out only once the adapters
    have changed since: no backward of an earlier forward is to come then.
    """

    def __init__(self, members: Sequence[nn.Module] = ()) -> None:
        self._members = tuple(map(weakref.ref, members))
        self._here = _Here()
        self._left_over = 0
        self._then: _Adapters | None = None
        self._given_up: _Adapters | None = None
        self._settled = False

    def __reduce__(self) -> Any:
        return type(self), ()

    @property
    def found(self) -> bool:
        """Whether it is a group's, not of layers that are watched."""
        return bool(self._members)

    def parts(self, layer: Any, x: Tensor) -> Parts | None:
        """What the layer computes with now, or None where its call would compute something else than LoRA."""
        return layer.parts() if isinstance(layer, LoRALinear) else None

    def output(self, layer: nn.Module, x: Tensor, parts: Parts) -> Tensor | None:
        """The layer's y from a group, or None: then it computes alone. parts: self.parts(layer, x)."""
        if not launch.runs_triton(x) or not launch.ordinary(x) or x.is_inference():
            return None
        if not self._members:
            return self._watch(layer, x, parts)
        here = self._here
        kept = here.kept
        if kept is not None:
            y = kept.take(layer, x, parts)
            if y is not None:
                if not kept.outputs:
                    kept.drop()
                    here.kept = None
                    self._left_over = max(0, self._left_over - PICKED_UP)
                return y
        return self._run(x) if self._members[0]() is layer else None

    def _run(self, x: Tensor) -> Tensor | None:
        """The first member's y; those of the others are kept."""
        here, kept = self._here, self._here.kept
        left_over = False
        if kept is not None:
            kept.drop()
            left_over = kept.left_over and not kept.recomputed
            here.kept = None
        recomputes = torch._C._current_graph_task_id() != -1
        layers = [member() for member in self._members]
        every = [None if layer is None or _watched(layer) else self.parts(layer, x) for layer in layers]
        parts = [one for one in every if one is not None]
        if len(parts) < len(layers) or not _alike(x, parts):
            return None
        if left_over:
            self._left_over += LEFT_OVER
            if self._left_over >= GIVE_UP and self._given_up is None:
                self._given_up = _Adapters(parts)
        hooked = torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
        # Reentrant checkpointing recomputes each of its regions by itself: they cannot share a mask.
        drawn_again = parts[0][5] > 0.0 and not hooked and (recomputes or not torch.is_grad_enabled())
        if drawn_again or not self._is_group(hooked, parts):
            return None
        kept = _Kept(x, recomputes)
        scale, p = parts[0][4:]
        members = [(weight, a, b, bias) for weight, bias, a, b, _, _ in parts]
        ys = together(x, members, scale, p, None, weakref.WeakMethod(kept.drop))
        if ys is None:
            return None
        kept.outputs = {
            id(layer): (y, _State(one)) for layer, y, one in zip(layers[1:], ys[1:], parts[1:], strict=True)
        }
        here.kept = kept
        return ys[0]

    def _is_group(self, hooked: bool, parts: Sequence[Parts]) -> bool:
        if self._then is None:
            self._then = _Adapters(parts)
        if not hooked:
            return self._given_up is None
        self._settled = self._settled or self._then.have_changed(parts)
        return self._settled and (self._given_up is None or not self._given_up.have_changed(parts))

    def _watch(self, layer: nn.Module, x: Tensor, parts: Parts) -> Tensor | None:
        """Notes who gets which x; when a layer is called again, the groups are known."""
        if torch._C._current_graph_task_id() != -1 or "_is_replica" in layer.__dict__:
            return None
        here = self._here
        here.runs = [run for run in here.runs if all(ref() is not None for ref in run.layers)]
        if any(ref() is layer for run in here.runs for ref in run.layers):
            with _settling:
                for run in here.runs:
                    members = [found for ref in run.layers if (found := ref()) is not None]
                    members = [found for found in members if found.__dict__.get("siblings") is self]
                    _share(members, type(self)(members) if len(members) > 1 else None)
            here.runs = []
            known: Any = layer.__dict__.get("siblings")
            return None if known is None or known is self else known.output(layer, x, parts)
        kind = (parts[0].dtype, parts[2].dtype, *parts[4:])
        same = [run for run in here.runs if run.reads(x, kind)] or [_Readers(x, kind)]
        same[0].layers.append(weakref.ref(layer))
        if same[0] not in here.runs:
            here.runs.append(same[0])
        return None


_settling = threading.Lock()


class _Here(threading.local):
    def __init__(self) -> None:
        self.kept: _Kept | None = None
        self.runs: list[_Readers] = []


class _Readers:
    """Layers of one kind that were called with the same x."""

    def __init__(self, x: Tensor, kind: tuple[Any, ...]) -> None:
        self.x, self.version, self.kind = weakref.ref(x), x._version, kind
        self.layers: list[weakref.ref[nn.Module]] = []

    def reads(self, x: Tensor, kind: tuple[Any, ...]) -> bool:
        return self.x() is x and self.version == x._version and self.kind == kind


class _Kept:
    """Outputs that wait for their layers' calls. They go when x does, and when a backward through them begins: it frees
    what the others' would need."""

    def __init__(self, x: Tensor, recomputed: bool) -> None:
        self.x: weakref.ref[Tensor] | None = weakref.ref(x, self.drop)
        self.around = _around(x)
        self.recomputed = recomputed  # in a backward: checkpointing may stop between the calls
        self.left_over = False
        self.outputs: dict[int, tuple[Tensor, _State]] = {}

    def take(self, layer: nn.Module, x: Tensor, parts: Parts) -> Tensor | None:
        """The layer's output, once, if all is as it was when it was computed."""
        waiting = self.outputs.get(id(layer))
        if waiting is None or self.x is None or self.x() is not x or self.around != _around(x):
            return None
        y, state = waiting
        if _watched(layer) or not state.is_that_of(parts):
            return None
        self.outputs.pop(id(layer), None)
        return y

    def drop(self, _: Any = None) -> None:
        """Nothing is handed out from now on; left_over tells whether something would have been."""
        self.left_over = self.left_over or bool(self.outputs)
        self.outputs = {}
        self.x = None


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


class _Adapters:
    """A and B of some layers with their versions at one time."""

    def __init__(self, parts: Sequence[Parts]) -> None:
        self.then = [(t, t._version) for one in parts for t in one[2:4]]

    def have_changed(self, parts: Sequence[Parts]) -> bool:
        """Whether these are the same tensors with other values; other adapters tell nothing."""
        now = [t for one in parts for t in one[2:4]]
        return all(t is before for t, (before, _) in zip(now, self.then, strict=True)) and any(
            t._version != version for t, (_, version) in zip(now, self.then, strict=True)
        )


def _around(x: Tensor) -> tuple[Any, ...]:
    """What must not differ between the siblings' calls, beside the layers' own parts."""
    kind = x.device.type
    autocast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    stream = (launch.raw_stream(x.device.index), torch.cuda.is_current_stream_capturing()) if x.is_cuda else None
    return x._version, x.requires_grad, torch.is_grad_enabled(), torch.is_inference_mode_enabled(), autocast, stream


def _itself(t: Tensor) -> Tensor:
    """The parameter whose transpose t may be: each call makes that one anew."""
    return t if t._base is None else t._base


def _version(t: Tensor) -> tuple[Any, ...]:
    return t._version, t.data_ptr(), t.requires_grad  # .data is set without a new version


def _alike(x: Tensor, parts: Sequence[Parts]) -> bool:
    """Whether one group can run them: their tensors are here and plain, scale and dropout are the same."""
    weight, _, a, _, scale, p = parts[0]
    return all(
        one[4] == scale and one[5] == p and one[2].dtype == a.dtype and one[0].dtype == weight.dtype
        and all(t is None or (launch.ordinary(t) and t.device == x.device and not t.is_inference()
                              and t.untyped_storage().nbytes() > 0) for t in one[:4])
        for one in parts
    )  # fmt: skip


def _watched(layer: nn.Module) -> bool:
    """Whether hooks see or change the layer's input, or bring its parameters only when it is called."""
    return bool(layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks)
