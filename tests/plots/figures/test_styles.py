"""Colours are seen on white, and told apart where nobody sees colours."""

from itertools import combinations

import numpy as np
import pytest
from matplotlib import colormaps
from matplotlib.colors import to_rgb

from bench.methods.registry import methods
from plots.figures import canvas, styles
from plots.figures.heat import ink_on
from plots.figures.styles import style_of

ALL = [(name, impl) for name, method in methods().items() for impl in method.impls]


def luminance(colour: str | tuple[float, ...]) -> float:
    """WCAG 2's relative luminance, worked out here."""
    parts = np.array(to_rgb(colour))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str | tuple[float, ...], other: str | tuple[float, ...]) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("method", "impl"), [*ALL, ("unknown", "eager"), ("unknown", "other")])
def test_every_mark_is_seen_on_white(method: str, impl: str) -> None:
    assert contrast(style_of(method, impl).colour, "white") >= 3


def test_so_are_words_and_differences() -> None:
    assert all(contrast(c, "white") >= 4.5 for c in (canvas.INK, canvas.SOFT, canvas.FAILED))
    assert all(contrast(c, "white") >= 3 for c in (styles.SLOWER, styles.FASTER))
    shades = colormaps[styles.DIVERGING](np.linspace(0, 1, 256))[:, :3]
    assert min(contrast(tuple(c), ink_on(*c)) for c in shades) >= 4
    assert contrast(tuple(colormaps[styles.DIVERGING](0.5)[:3]), "white") < 1.1, "a ratio of 1 has no colour"


def test_every_two_are_told_apart_in_grey() -> None:
    """By the mark, or by how light it is."""
    for one, other in combinations([style_of(*kind) for kind in ALL], 2):
        same = (one.marker, one.fill) == (other.marker, other.fill)
        assert not same or contrast(one.colour, other.colour) >= 1.3, (one, other)


def test_the_hue_is_the_methods_and_fused_kernels_are_the_darkest() -> None:
    for method in ("lora", "paca"):
        of = {impl: style_of(method, impl) for name, impl in ALL if name == method}
        assert min(of, key=lambda impl: luminance(of[impl].colour)) == "triton" and of["triton"].large
        assert max(of, key=lambda impl: luminance(of[impl].colour)) == "eager" and not of["eager"].large
    red, _, blue = np.transpose([to_rgb(style_of("lora", impl).colour) for name, impl in ALL if name == "lora"])
    assert all(red > blue)
    red, _, blue = np.transpose([to_rgb(style_of("paca", impl).colour) for name, impl in ALL if name == "paca"])
    assert all(blue > red)
    assert all(np.ptp(to_rgb(style_of("full", impl).colour)) < 0.06 for name, impl in ALL if name == "full"), "grey"


def test_namesakes_get_other_marks_of_the_same_colour() -> None:
    found = styles.styles({f"PaCA triton rank {r}": ("paca", "triton") for r in (8, 16, 32)})
    assert len({s.marker for s in found.values()}) == 3 and len({s.colour for s in found.values()}) == 1
