"""Heat maps of forward-backward over Full-FT's, batch by length, with the line at which it is 1."""

from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import listed
from plots.data.crossover import Map, crossover_maps
from plots.data.panels import MAX_TYPES, Panel
from plots.figures.canvas import INK, MAX_MODELS, finish, new_canvas
from plots.figures.heat import shade_cells
from plots.render.blocks import Figure
from plots.text.captions import note, panel_place

if TYPE_CHECKING:
    from matplotlib.axes import Axes


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
    canvas = new_canvas(max(7.0, wide * len(models)), 0.3 + high * len(types))
    grid = canvas.subplots(len(types), len(models), squeeze=False)
    for row, type_ in enumerate(types):
        for column, model in enumerate(models):
            axes = grid[row][column]
            axes.set_title(f"{model}: {type_}")
            axes.set_ylabel("batch" if column == 0 else "")
            axes.set_xlabel("length" if row == len(types) - 1 else "")
            if found := maps.get((model, type_)):
                _draw(axes, found)
            else:
                axes.set_axis_off()
    what = "Forward-backward time over Full-FT's"
    words = (
        "Green: faster than Full-FT, purple: slower; hatched: not decided. Line: where it turns, dashed beside what is "
        f"not decided.{f' Left out for want of room: {listed(left)}.' if left else ''}"
    )
    return finish(canvas, path, f"{what}: {panel_place(panel)}", note(panel, words))


def _draw(axes: "Axes", found: Map) -> None:
    shade_cells(axes, [[*line] for line in found.ratios])
    for edge in found.edges:
        (x0, y0), (x1, y1) = edge.start, edge.end
        axes.plot([x0, x1], [y0, y1], color=INK, lw=2.2, ls="-" if edge.sure else (0, (2, 1.2)), solid_capstyle="butt")
    axes.set_xlim(-0.5, len(found.lengths) - 0.5)
    axes.set_ylim(-0.5, len(found.batches) - 0.5)
    axes.set_xticks(range(len(found.lengths)), [str(s) for s in found.lengths])
    axes.set_yticks(range(len(found.batches)), [str(b) for b in found.batches])
