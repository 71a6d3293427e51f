"""Siblings: layers that read the same x (q, k, v; gate, up) run as one group, though a model calls them one by one.

Which layers they are is found out. Alike layers of one parent share a Siblings, which watches one forward, where each
runs alone: those that get the same tensor one after the other are a group from then on. The first called with x
computes all of them and keeps the others' outputs, each until its layer is called with the same x.
"""

import threading
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..runtime import launch
from .group import together
from .kept_outputs import Kept, Parts, saving_hooks, watched
from .module import LoRALinear

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
    inference mode, and with dropout under no_grad, which is how reentrant checkpointing calls. Under non-reentrant
    checkpointing groups begin when no earlier forward waits for its backward. A copy of the model finds its own groups.
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

    Checkpointing that recomputes must find what forward had: as many saved tensors, and the same masks. So calls whose
    saved tensors go to hooks, as in non-reentrant checkpointing, take up what was found out once none of those before
    can be recomputed any more, that is when their hooks are gone: autograd holds them until backward has been.
    """

    def __init__(self, members: Sequence[nn.Module] = (), owed: Sequence[Callable[[], Any]] = ()) -> None:
        self._members = tuple(map(weakref.ref, members))
        self._here = _Here()
        self._left_over = 0
        self._given_up = False
        self._owed = list(owed)  # weak references to the hooks of earlier calls
        self._grouped_under_hooks = False

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
        every = [None if layer is None or watched(layer) else self.parts(layer, x) for layer in layers]
        parts = [one for one in every if one is not None]
        if len(parts) < len(layers) or not _alike(x, parts):
            return None
        if left_over:
            self._left_over += LEFT_OVER
            self._given_up = self._given_up or self._left_over >= GIVE_UP
        hooked = saving_hooks() is not None
        # Reentrant checkpointing recomputes each of its regions by itself: they cannot share a mask.
        drawn_again = parts[0][5] > 0.0 and not hooked and (recomputes or not torch.is_grad_enabled())
        if drawn_again or not (self._is_group_under_hooks(recomputes) if hooked else not self._given_up):
            return None
        kept = Kept(x, recomputes)
        scale, p = parts[0][4:]
        members = [(weight, a, b, bias) for weight, bias, a, b, _, _ in parts]
        ys = together(x, members, scale, p, None, weakref.WeakMethod(kept.drop))
        if ys is None:
            return None
        kept.keep(layers[1:], ys[1:], parts[1:])
        here.kept = kept
        return ys[0]

    def _is_group_under_hooks(self, recomputes: bool) -> bool:
        if not recomputes:
            if all(ref() is None for ref in self._owed):
                self._grouped_under_hooks = not self._given_up
            self._owe()
        return self._grouped_under_hooks

    def _owe(self) -> None:
        """Notes the hooks that are in place, if there are some, beside those of earlier calls that live."""
        hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
        if hooks is not None:
            self._owed = [*(ref for ref in self._owed if ref() not in (None, hooks[1])), _weakly(hooks[1])]

    def _watch(self, layer: nn.Module, x: Tensor, parts: Parts) -> Tensor | None:
        """Notes who gets which x; when a layer is called again, the groups are known."""
        if torch._C._current_graph_task_id() != -1 or "_is_replica" in layer.__dict__:
            return None
        self._owe()
        here = self._here
        here.runs = [run for run in here.runs if all(ref() is not None for ref in run.layers)]
        if any(ref() is layer for run in here.runs for ref in run.layers):
            with _settling:
                for run in here.runs:
                    members = [found for ref in run.layers if (found := ref()) is not None]
                    members = [found for found in members if found.__dict__.get("siblings") is self]
                    _share(members, type(self)(members, self._owed) if len(members) > 1 else None)
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
        self.kept: Kept | None = None
        self.runs: list[_Readers] = []


class _Readers:
    """Layers of one kind that were called with the same x."""

    def __init__(self, x: Tensor, kind: tuple[Any, ...]) -> None:
        self.x, self.version, self.kind = weakref.ref(x), x._version, kind
        self.layers: list[weakref.ref[nn.Module]] = []

    def reads(self, x: Tensor, kind: tuple[Any, ...]) -> bool:
        return self.x() is x and self.version == x._version and self.kind == kind


def _weakly(hook: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(hook)
    except TypeError:  # of a kind without weak references: it counts for ever
        return lambda: hook


def _alike(x: Tensor, parts: Sequence[Parts]) -> bool:
    """Whether one group can run them: their tensors are here and plain, scale and dropout are the same."""
    weight, _, a, _, scale, p = parts[0]
    return all(
        one[4] == scale and one[5] == p and one[2].dtype == a.dtype and one[0].dtype == weight.dtype
        and all(t is None or (launch.ordinary(t) and t.device == x.device and not t.is_inference()
                              and t.untyped_storage().nbytes() > 0) for t in one[:4])
        for one in parts
    )  # fmt: skip
