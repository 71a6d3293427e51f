"""Short names for training types, shapes, axes and lists."""

from collections.abc import Iterable, Sequence

from bench.case import AXES, OPTIONS, Case
from bench.errors import listed
from bench.methods.registry import methods
from plots.data.load import text

# What a table or figure tells elsewhere; the label of a training type names the other axes where namesakes differ.
PLACED = ("level", "model", "layer", "method", "impl", "precision", "batch", "seq", "l2")
TOLD_APART = tuple(name for name in AXES if name not in PLACED)
USUAL = {"trainable_layers": "all"} | {name: None for name, axis in AXES.items() if axis.usual}  # which goes unsaid
SHORT = {"trainable_layers": "layers", "adapter_dtype": "adapters"}


def distinct(values: Iterable[object]) -> list[str]:
    """The values as text, empty ones left out, without repetitions, in order of first appearance."""
    return list(dict.fromkeys(v for v in map(text, values) if v is not None))


def shape_word(shape: tuple[int, int]) -> str:
    """(4, 512) -> '4 x 512'."""
    return f"{shape[0]} x {shape[1]}"


def shapes_word(shapes: Sequence[tuple[int, int]]) -> str:
    """All of a few shapes, or the ends of many."""
    if len(shapes) <= 4:
        return listed([shape_word(s) for s in shapes])
    by_size = sorted(shapes, key=lambda s: s[0] * s[1])
    return f"{len(shapes)} shapes from {shape_word(by_size[0])} to {shape_word(by_size[-1])}"


def short_axis(axis: str) -> str:
    return SHORT.get(axis, AXES[axis].label)


def method_label(name: str) -> str:
    """'LoRA'; of a method that is not known here, its name."""
    return methods()[name].label if name in methods() else name


def labels(cases: Sequence[Case]) -> dict[Case, str]:
    """A name for the training type of each case: method and implementation, and the axes in which its namesakes differ;
    what is usual goes unsaid.

    Cases that differ only in model, layer, batch or length get the same name: they are one line of a table.
    """
    seen: dict[tuple[str, str], dict[str, set[str]]] = {}
    for case in cases:
        axes = seen.setdefault((case.method, case.impl), {axis: set() for axis in TOLD_APART})
        for axis in TOLD_APART:
            axes[axis].add(_value(case, axis))
    named = {}
    for case in cases:
        axes = seen[case.method, case.impl]
        extra = [
            f"{short_axis(axis)} {_value(case, axis)}"
            for axis in TOLD_APART
            if (len(axes[axis]) > 1 or axis in OPTIONS) and getattr(case, axis) != USUAL.get(axis, "")
        ]
        named[case] = " ".join([method_label(case.method), case.impl, *extra])
    return named


def _value(case: Case, axis: str) -> str:
    return text(getattr(case, axis)) or AXES[axis].usual or "none"
