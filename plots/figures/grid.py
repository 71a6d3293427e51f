"""Heat maps of forward-backward over Full-FT's, batch by length, with the line at which it is 1."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.errors import listed
from plots.data.crossover import Map, crossover_maps
from plots.data.panels import MAX_TYPES, Panel
from plots.data.results import Ratio
from plots.figures.canvas import FAILED, INK, MAX_MODELS, finish, new_canvas
from plots.render.blocks import Figure
from plots.text.captions import caption, panel_place

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LIMIT = 1.0  # the colours of a heat map end at ratios of 2 and 1/2
HATCH = "#7b838a"


def grid_figure(panel: Panel, path: Path) -> Figure | None:
    """Heat maps of forward-backward over Full-FT's, batch by length; needs two of each."""
    maps = crossover_maps(panel)
    types = list(dict.fromkeys(type_ for _, type_ in maps))
    models = list(dict.fromkeys(subject for subject, _ in maps))[:MAX_MODELS]
    types, left = types[:MAX_TYPES], types[MAX_TYPES:]
    if not maps:
        return None
    sizes = [(len(m.lengths), len(m.batches)) for m in maps.values()]
    wide, high = max(0.72 * max(s[0] for s in sizes) + 0.8, 2.6), 0.42 * sizes[0][1] + 0.75
    canvas = new_canvas(max(7.0, wide * len(models)), 1.9 + high * len(types))
    grid = canvas.subplots(len(types), len(models), squeeze=False)
    for row, type_ in enumerate(types):
        for column, model in enumerate(models):
            axes = grid[row][column]
            axes.set_title(f"{model}: {type_}", loc="left", fontsize=9)
            axes.grid(False)
            axes.set_ylabel("batch" if column == 0 else "")
            axes.set_xlabel("length" if row == len(types) - 1 else "")
            if found := maps.get((model, type_)):
                _draw(axes, found)
            else:
                axes.set_axis_off()
    what = "Forward-backward time over Full-FT's"
    words = (
        f"{what} at equal axes: above 1, orange, is slower than Full-FT. The line runs where neighbouring cells lie on "
        "either side of 1, dashed beside a cell that is not decided. Hatched cells are not decided: their interval "
        f"holds 1, or is too wide. {f'Left out for want of room: {listed(left)}. ' if left else ''}{caption(panel)}"
    )
    return finish(canvas, path, f"{what}: {panel_place(panel)}", words)


def _draw(axes: "Axes", found: Map) -> None:
    from matplotlib.patches import Rectangle

    shade = np.array([[np.log2(r.value.value) if r and r.value else np.nan for r in line] for line in found.ratios])
    axes.imshow(shade, cmap="PuOr_r", vmin=-LIMIT, vmax=LIMIT, aspect="auto", origin="lower")
    for i, line in enumerate(found.ratios):
        for j, r in enumerate(line):
            words = _word(r)
            there = r is not None and r.value is not None
            back = None
            if r and there and not r.decided:
                line_colour = "white" if abs(shade[i, j]) > 0.4 * LIMIT else HATCH
                axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, hatch="////", ec=line_colour, lw=0))
                back = {"facecolor": "white", "alpha": 0.85, "edgecolor": "none", "boxstyle": "square,pad=0.12"}
            dark = there and not back and abs(shade[i, j]) > 0.6 * LIMIT
            ink = FAILED if not there else "white" if dark else INK
            size = 8 if len(words) < 7 else 5.5
            axes.text(j, i, words, ha="center", va="center", fontsize=size, color=ink, bbox=back)
    for edge in found.edges:
        (x0, y0), (x1, y1) = edge.start, edge.end
        axes.plot([x0, x1], [y0, y1], color=INK, lw=2.2, ls="-" if edge.sure else (0, (2, 1.2)), solid_capstyle="butt")
    axes.set_xlim(-0.5, len(found.lengths) - 0.5)
    axes.set_ylim(-0.5, len(found.batches) - 0.5)
    axes.set_xticks(range(len(found.lengths)), [str(s) for s in found.lengths])
    axes.set_yticks(range(len(found.batches)), [str(b) for b in found.batches])


def _word(ratio: Ratio | None) -> str:
    if ratio is None:
        return "not\nmeasured"
    return f"{ratio.value.value:.2f}" if ratio.value else ratio.word
