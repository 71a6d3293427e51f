"""The siblings among accelerated layers (q, k, v; gate, up): found out as kernels.lora.siblings does, run as groups."""

from functools import partial
from typing import Any

from torch import Tensor

from ..lora.kept_outputs import Parts
from ..lora.siblings import Siblings
from .fused_linear import Linear
from .layer_parts import DoraParts, parts_of
from .servable_call import dtypes_fit


class PeftSiblings(Siblings):
    """In a pickle, which must load without this package, it is None; accelerate() makes another one there."""

    def parts(self, layer: Any, x: Tensor) -> Parts | None:
        if not isinstance(layer, Linear):  # restored
            return None
        parts = parts_of(layer)
        return None if isinstance(parts, str | DoraParts) or not dtypes_fit(layer, x, parts) else parts

    def __reduce__(self) -> Any:
        return _Fresh(), ()


class _Fresh:
    """Called by copy it makes a PeftSiblings; pickled it is what makes a None."""

    def __call__(self) -> PeftSiblings:
        return PeftSiblings()

    def __reduce__(self) -> Any:
        return partial, (type(None),)
