"""How a training type looks in every figure: hue and shape by method, shade and fill by implementation.

The shades are the method's own: dark for fused kernels, light for textbook PyTorch, between them for all else. Shapes
and fills tell apart what grey print would not; a hollow mark is a noisy value.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bench.case.schema import BASELINE
from bench.methods.registry import methods
from bench.record.stats import RATIO_NOISY, Estimate
from plots.data.panels import Panel
from plots.data.results import Ratio
from plots.figures.canvas import FAILED, INK, SOFT
from plots.text.numbers import ratio_word

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

OTHER = ("#00634a", "#008563", "#2a9d78")  # of methods that are not known here
TEXTBOOK = "eager"
# Of each method, the first for all but namesakes: of these three, then of the others in their order.
SHAPES = ("sDdH", "oh8p", "^v<>", "DsdH", "v^<>", "PX*+", "X*P+", "p8ho", "*XP+", "h8po")
FIRST = (BASELINE, "lora", "paca")
FILLS = ("full", "left", "bottom", "right", "top")
SLOWER, FASTER = "#762a83", "#1b7837"  # of differences to Full-FT; the ends of the colour map below
DIVERGING = "PRGn_r"  # green is faster, purple slower, white in the middle
SMALL = 0.02  # of a ratio; the light band on either side of 1
MAX_TICKS = 6
NOISY_RATIO = f"Hollow: noisy, an interval wider than ±{100 * RATIO_NOISY:.0f} %."


@dataclass(frozen=True)
class Style:
    """Of one training type."""

    colour: str
    marker: str
    fill: str  # one of matplotlib's fill styles
    large: bool  # of fused kernels, which are to be found at once

    def mark(self, noisy: bool = False) -> dict[str, Any]:
        """As matplotlib's lines take it."""
        return {
            "marker": self.marker, "ms": 7.5 if self.large else 5.5, "mew": 1.2, "color": self.colour,
            "mec": self.colour, "fillstyle": "none" if noisy else self.fill, "markerfacecoloralt": "white", "ls": "",
        }  # fmt: skip


def style_of(method: str, impl: str, namesake: int = 0) -> Style:
    """The same in every figure; namesakes, which differ in further axes, get other shapes."""
    known = methods()
    found = known.get(method)
    impls = found.impls if found else {}
    shades = found.colours if found else OTHER
    shade = _shade(method, impl)
    alike = [name for name in impls if _shade(method, name) == shade]
    place = (alike.index(impl) if impl in alike else 0) + (shade == 1)
    ordered = [*FIRST, *(name for name in known if name not in FIRST)]
    shapes = SHAPES[min(ordered.index(method) if method in ordered else len(ordered), len(SHAPES) - 1)]
    shape = shapes[(place // len(FILLS) + namesake) % len(shapes)]
    return Style(shades[min(shade, len(shades) - 1)], shape, FILLS[place % len(FILLS)], shade == 0)


def _shade(method: str, impl: str) -> int:
    """0 of fused kernels, 2 of textbook PyTorch, 1 of all else."""
    found = methods().get(method)
    its = found.impls.get(impl) if found else None
    return 0 if its is not None and its.tuned else 2 if impl == TEXTBOOK else 1


def styles(kinds: dict[str, tuple[str, str]]) -> dict[str, Style]:
    """Of training types, by their (method, impl)."""
    seen: dict[tuple[str, str], int] = {}
    found = {}
    for type_, kind in kinds.items():
        found[type_] = style_of(*kind, seen.setdefault(kind, 0))
        seen[kind] += 1
    return found


def styles_in(panel: Panel) -> dict[str, Style]:
    """Of each training type of a panel."""
    kinds = {panel.labels[c]: (c.method, c.impl) for c in panel.cases}
    return styles({type_: kinds[type_] for type_ in panel.types})


def key(label: str, style: Style) -> "Line2D":
    """A line of the legend."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, **style.mark())


def whisker(found: Estimate) -> tuple[float, float]:
    """How far the interval reaches below and above the value; 0 where there is none."""
    low, high = (found.value if end is None else end for end in (found.low, found.high))
    return max(found.value - low, 0.0), max(high - found.value, 0.0)


def draw_across(axes: "Axes", found: Estimate, y: float, style: Style, noisy: bool = False) -> None:
    """A point with its interval at height y."""
    low, high = whisker(found)
    axes.errorbar(
        found.value, y, xerr=[[low], [high]], ecolor=INK, elinewidth=1, capsize=2.5, zorder=3, **style.mark(noisy)
    )


def draw_ratio(axes: "Axes", ratio: Ratio, y: float, style: Style, labelled: bool = True) -> None:
    """A ratio with its interval at height y, its number right of the axes, or the word that stands in its place."""
    found = ratio.value
    if labelled or found is None:
        axes.text(
            1.02 if labelled else 0.99, y, ratio_word(ratio).removesuffix(" †"), ha="left" if labelled else "right",
            va="center", fontsize=8, transform=axes.get_yaxis_transform(), color=FAILED if found is None else INK,
        )  # fmt: skip
    if found is not None:
        draw_across(axes, found, y, style, ratio.noisy)


def ratio_axes(every: Sequence["Axes"], whole: str = "Full-FT's", what: str = "time") -> None:
    """Axes of ratios on one log scale, which treats 1/2 and 2 alike: a line at 1, a band of what is hardly anything,
    and the words which side is better. To be called when all is drawn."""
    from matplotlib.ticker import FixedLocator, NullLocator

    shown = [axes for axes in every if axes.get_visible()]
    for axes in shown:
        axes.set_xscale("log", base=2)
    limits = [axes.dataLim.intervalx for axes in shown]
    low = min([0.9, *(float(x[0]) for x in limits if 0 < x[0] < float("inf"))]) / 1.04
    high = max([1.1, *(float(x[1]) for x in limits if 0 < x[1] < float("inf"))]) * 1.04
    for axes in shown:
        axes.set_xlim(low, high)
        axes.axvspan(1 - SMALL, 1 + SMALL, color="#e9ecef", lw=0, zorder=0)
        axes.axvline(1, color=INK, lw=1.1, zorder=1)
        axes.xaxis.set_major_locator(FixedLocator(_ticks(low, high)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        place = axes.get_subplotspec()
        if place is None or place.is_last_row():
            axes.set_xlabel(f"{what} / {whole}\n← faster    slower →", color=SOFT)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers inside the limits, few enough to be read; 1 is one of them."""
    powers = [2.0**i for i in range(-15, 16)]
    for steps in (
        [i / 20 for i in range(8, 41)], [i / 10 for i in range(2, 41)],
        (0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1, 1.25, 1.5, 2, 2.5, 3, 4, 5), (0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 4),
        powers, powers[::2], powers[::3],
    ):  # fmt: skip
        found = [value for value in steps if low <= value <= high]
        if len(found) <= MAX_TICKS:
            break
    return found
