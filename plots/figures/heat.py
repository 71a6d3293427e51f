"""Cells of ratios, shaded on either side of 1."""

from typing import TYPE_CHECKING

from plots.data.results import Ratio
from plots.figures.canvas import FAILED, INK
from plots.figures.styles import DIVERGING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NONE = "-"  # the tables have the word why
LIMIT = 1.0  # of log2 of a ratio; the colours end at 2 and 1/2
UNDECIDED = "////"
HATCH = "#7b838a"


def shade_cells(axes: "Axes", ratios: list[list[Ratio | None]]) -> None:
    """A cell a ratio, its number in it, row 0 uppermost unless the y axis is turned; hatched where it does not say
    which of the two is faster."""
    import numpy as np
    from matplotlib.patches import Rectangle

    shade = np.array([[np.log2(r.value.value) if r and r.value else np.nan for r in line] for line in ratios])
    image = axes.imshow(shade, cmap=DIVERGING, vmin=-LIMIT, vmax=LIMIT, aspect="auto")
    axes.grid(False)
    axes.tick_params(length=0)
    for i, line in enumerate(ratios):
        for j, ratio in enumerate(line):
            words, ink, back = _word(ratio), FAILED, None
            if ratio and ratio.value:
                ink = ink_on(*image.cmap(image.norm(shade[i, j]))[:3])
                if not ratio.decided and not ratio.by_definition:
                    axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, hatch=UNDECIDED, ec=HATCH, lw=0))
                    back, ink = {"facecolor": "white", "edgecolor": "none", "boxstyle": "square,pad=0.12"}, INK
            size = 8 if len(words) < 7 else 6.5
            axes.text(j, i, words, ha="center", va="center", fontsize=size, color=ink, bbox=back)


def _word(ratio: Ratio | None) -> str:
    if ratio is None:
        return ""
    return f"{ratio.value.value:.2f}" if ratio.value else NONE


def ink_on(red: float, green: float, blue: float) -> str:
    """White or ink, whichever is read better on a colour with parts from 0 to 1."""
    lum = luminance((red, green, blue))
    return "white" if 1.05 / (lum + 0.05) > (lum + 0.05) / (luminance((0.11, 0.125, 0.141)) + 0.05) else INK


def luminance(colour: tuple[float, float, float]) -> float:
    """Relative luminance as WCAG 2 has it, 0 of black and 1 of white."""
    r, g, b = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in colour)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b
