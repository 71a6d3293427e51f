"""Names beside points, so that none lies on another, on a point or on other words."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from plots.figures.canvas import INK, SOFT, extent, texts_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.transforms import Bbox

NEAR, FAR = 0.09, (0.09, 0.2, 0.34, 0.5, 0.7)  # inches from a point to its name; a line leads to those beyond NEAR
TURNS = (0, 180, 40, -40, 140, -140, 90, -90, 65, -65, 115, -115)  # degrees, the first that is free is taken


@dataclass(frozen=True)
class Named:
    """A point in units of the axes, with its name."""

    name: str
    x: float
    y: float
    low: float  # the ends of its whisker
    high: float
    bold: bool


def place_names(axes: "Axes", points: Sequence[Named]) -> None:
    """Writes the names; to be called when the axes have their size. The nearest free place of each is taken; where
    there is none, that with the least below it."""
    canvas = axes.get_figure(root=True)
    assert canvas is not None
    for old in [text for text in axes.texts if text.get_gid() == "name"]:
        old.remove()
    dpi, inside = canvas.dpi, axes.get_window_extent()
    taken: list[np.ndarray] = [np.array(extent(text).extents) for text in texts_of(canvas)]
    for point in points:
        (x, y), (_, low), (_, high) = axes.transData.transform([(point.x, v) for v in (point.y, point.low, point.high)])
        taken.append(np.array([x - 0.05 * dpi, y - 0.05 * dpi, x + 0.05 * dpi, y + 0.05 * dpi]))
        taken.append(np.array([x - 2, low, x + 2, high]))
    for line in axes.lines:
        ends = line.get_transform().transform(np.asarray(line.get_xydata()))
        taken.append(np.array([*(ends.min(axis=0) - 1), *(ends.max(axis=0) + 1)]))
    for point in sorted(points, key=lambda p: (-p.y, p.x)):
        at = axes.transData.transform((point.x, point.y))
        found = axes.text(0, 0, point.name, fontsize=8, color=INK, gid="name", zorder=5,
                          fontweight="bold" if point.bold else "normal", transform=None)  # fmt: skip
        size = extent(found)
        places = [(far, _beside(at, far * dpi, turn, size.width, size.height)) for far in FAR for turn in TURNS]
        far, box = min(places, key=lambda place: _below(place[1], np.array(taken), inside))
        taken.append(np.array(box.extents))
        found.set_transform(axes.transData)
        found.set_position(tuple(axes.transData.inverted().transform((box.x0, box.y0))))
        found.set_verticalalignment("bottom")
        if far > NEAR:
            end = axes.transData.inverted().transform((np.clip(at[0], box.x0, box.x1), np.clip(at[1], box.y0, box.y1)))
            axes.plot([point.x, end[0]], [point.y, end[1]], color=SOFT, lw=0.6, zorder=2)


def _beside(at: np.ndarray, far: float, turn: float, wide: float, high: float) -> "Bbox":
    """A box whose nearest edge is so many pixels from the point, in the direction given."""
    from matplotlib.transforms import Bbox

    way = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    x = at[0] + far * way[0] + (0 if way[0] > 0.2 else -wide if way[0] < -0.2 else -wide / 2)
    y = at[1] + far * way[1] + (-high / 2 if abs(way[1]) < 0.2 else 0 if way[1] > 0 else -high)
    return Bbox.from_bounds(x, y, wide, high)


def _below(box: "Bbox", taken: np.ndarray, inside: "Bbox") -> float:
    """Square pixels of what lies below a box, and of what of it lies outside the axes, which counts tenfold."""
    outside = box.width * box.height - _overlap(box, np.array([inside.extents]))
    return 10 * outside + _overlap(box, taken)


def _overlap(box: "Bbox", others: np.ndarray) -> float:
    """Square pixels; others: (n, 4), each from its lower left to its upper right corner."""
    sides = np.minimum([box.x1, box.y1], others[:, 2:]) - np.maximum([box.x0, box.y0], others[:, :2])
    return float(np.prod(np.maximum(sides, 0), axis=1).sum())
