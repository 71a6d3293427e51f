"""Tensor descriptors of a launch on the host: what TMA needs to know of a matrix, encoded once for each address.

Triton makes a descriptor of every such argument anew at each call, at a cost of microseconds, in Python and in
the driver's cuTensorMapEncodeTiled. A map depends on nothing but what encode() is given, and refers to no memory but by
its address: memory that was freed and came back with the same layout has the same map. So maps are kept, and the
caching allocator hands out the same addresses in every step.
"""

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from functools import partial
from itertools import chain
from types import CellType, FunctionType
from typing import Any

from torch import Tensor

from .c_launcher import handed_by

#: The function that puts, in the place of a launch's tensors, what its launcher takes for them.
Expand = Callable[[tuple[Any, ...]], tuple[Any, ...]]

#: Maps by encoder and address. Emptied at its most. Estimates: an entry takes half a KiB, and a step of gpt2-xl has
#: about 1200 operands for each length.
MOST = 16384
_maps: dict[tuple["Encoder", int], tuple[Any, ...]] = {}
#: Those of all operands of a launch, by the first one's encoder and all addresses: one look-up in place of three and
#: their joining is 1.6 us less of 2.2, and a step's tensors come back to their places together.
_together: dict[tuple[Any, ...], tuple[Any, ...]] = {}

address_of = Tensor.data_ptr


@dataclass(frozen=True)
class Layout:
    """A matrix as a descriptor sees it: shape and strides in elements, the last stride 1, and its blocks.

    The tensor that a call brings gives the address and the dtype alone.
    """

    shape: tuple[int, int]
    strides: tuple[int, int]
    block: tuple[int, int]

    def descriptor(self, t: Tensor) -> Any:
        """Triton's own; raises AssertionError where t or the strides are not at multiples of 16 bytes."""
        from triton.tools.tensor_descriptor import TensorDescriptor

        return TensorDescriptor(t, list(self.shape), list(self.strides), list(self.block))


class Encoder:
    """One operand of a compiled kernel: its layout, and how Triton encodes a descriptor for that kernel."""

    __slots__ = ("encode", "layout")

    def __init__(self, layout: Layout, encode: Callable[[Any], list[Any]] | None) -> None:
        self.layout = layout
        self.encode = encode

    def __call__(self, t: Tensor) -> tuple[Any, ...]:
        """What the launcher takes for t: the map, shape and strides, kept from now on; or the descriptor, which Triton
        encodes."""
        encode = self.encode
        if encode is None:
            return (self.layout.descriptor(t),)
        key = (self, t.data_ptr())
        found = _maps.get(key)
        if found is None:
            found = tuple(encode(self.layout.descriptor(t)))
            _keep(_maps, key, found)
        return found


def forget_maps() -> None:
    """Every map is encoded anew."""
    _maps.clear()
    _together.clear()


def _keep(found: dict[Any, Any], key: Any, value: Any) -> None:
    if len(found) >= MOST:
        found.clear()
    found[key] = value


def expander(encoders: list[Encoder]) -> Expand:
    """The function that puts, for each of the first arguments, what its encoder makes of it."""
    count = len(encoders)
    if any(encoder.encode is None for encoder in encoders):  # a descriptor holds its tensor: none is kept
        return lambda arguments: (*_made(encoders, arguments), *arguments[count:])
    first = encoders[0]

    def expand(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        key = (first, *map(address_of, arguments[:count]))
        found = _together.get(key)
        if found is None:
            found = _made(encoders, arguments)
            _keep(_together, key, found)
        return found + arguments[count:]

    return expand


def _made(encoders: list[Encoder], arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(chain.from_iterable(encoder(t) for encoder, t in zip(encoders, arguments, strict=False)))


def below_descriptors(
    run: Any, layouts: list[Layout], start: tuple[Any, ...], inputs: tuple[Any, ...], rest: tuple[Any, ...]
) -> tuple[Any, Expand]:
    """The launcher that takes encoded maps, and the function that puts them in the place of the tensors, which are the
    first inputs.

    run: a compiled kernel's launcher, which is called with start, inputs and rest; its `launch` expands descriptors and
    calls one written in C (true of triton 3.6.0 and 3.7.1). Where run is not made so, or does not do with these inputs
    what is expected of it, it is returned itself, with a function that leaves the encoding to it: correct, and slower.
    """
    plain = expander([Encoder(layout, None) for layout in layouts])
    found = _opened(run)
    if found is None:
        return run, plain
    below, encode, metas = found
    if len(metas) != len(layouts):
        return run, plain
    expand = expander([Encoder(layout, _by(encode, meta)) for layout, meta in zip(layouts, metas, strict=True)])
    try:
        own = handed_by(run, (*start, *plain(inputs), *rest), partial(_with_launcher, run.launch))
        ours = handed_by(below, (*start, *expand(inputs), *rest))
    except (TypeError, AttributeError, KeyError):
        return run, plain
    return (below, expand) if _equal(own, ours) else (run, plain)


def _by(encode: Callable[[Any, Any], list[Any]], meta: Any) -> Callable[[Any], list[Any]]:
    return lambda descriptor: encode(descriptor, meta)


def _opened(run: Any) -> tuple[Any, Callable[[Any, Any], list[Any]], list[Any]] | None:
    """run without the function that expands descriptors, that of its parts which encodes one, and what it is told of
    each; None where run is not made so, or the kernel takes no maps."""
    expand = getattr(run, "launch", None)
    if not isinstance(expand, FunctionType) or expand.__closure__ is None:
        return None
    cells = dict(zip(expand.__code__.co_freevars, expand.__closure__, strict=True))
    encode = expand.__globals__.get("make_tensordesc_arg")
    if not {"launcher", "tensordesc_meta"} <= cells.keys() or not callable(encode):
        return None
    metas = cells["tensordesc_meta"].cell_contents
    if not isinstance(metas, list | tuple) or not all(isinstance(meta, dict) for meta in metas):
        return None
    below = copy(run)
    below.launch = cells["launcher"].cell_contents
    return below, encode, list(metas)


def _with_launcher(expand: Any, launcher: Any) -> Any:
    """The function that expands descriptors, before another launcher."""
    cells = [
        CellType(launcher) if name == "launcher" else cell
        for name, cell in zip(expand.__code__.co_freevars, expand.__closure__, strict=True)
    ]
    return FunctionType(expand.__code__, expand.__globals__, closure=tuple(cells))


def _equal(one: Any, other: Any) -> bool:
    """Whether the launcher in C sees the same. Maps are objects that do not compare, so their types do."""
    if isinstance(one, list | tuple):
        return isinstance(other, list | tuple) and len(one) == len(other) and all(map(_equal, one, other))
    if one is other:
        return True
    if type(one) is not type(other):
        return False
    return type(one).__eq__ is object.__eq__ or (isinstance(one, int | float | str) and one == other)
