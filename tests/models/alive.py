"""How many bytes a forward leaves behind for backward, counted on the tensors themselves."""

import gc
import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from bench.models.work import Work


class Made(TorchDispatchMode):
    """Notes the storage of every tensor that is made inside of it. A storage that is seen again has its old tag."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[weakref.ref[Any]] = []
        self.sees_fused_layers = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for t in out if isinstance(out, tuple | list) else (out,):
            if isinstance(t, Tensor):
                self.tensors.append(weakref.ref(t.untyped_storage()))
        return out


def left_behind(work: Work) -> int:
    """Bytes of storages that a forward made and that live on beside its output, each once."""
    work.clear()
    with Made() as made:
        out = work.forward()
    gc.collect()
    known = {id(out.untyped_storage())} if isinstance(out, Tensor) else set()
    there = {t.untyped_storage().data_ptr() for t in [*work.model.parameters(), *work.model.buffers()]}
    there |= {t.untyped_storage().data_ptr() for _, t in work.leaves}
    found = {s.data_ptr(): s.nbytes() for ref in made.tensors if (s := ref()) is not None}
    return sum(n for at, n in found.items() if at not in there and at not in known)
