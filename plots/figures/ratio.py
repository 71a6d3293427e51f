"""Forward-backward over Full-FT's, one point with its interval a training type, batch x length and model."""

from math import log
from pathlib import Path

from plots.data.labels import shape_word
from plots.data.methods import shown_ratio, shown_types
from plots.data.panels import MAX_TYPES, Panel
from plots.data.paper import paper_row
from plots.figures.canvas import INK, MAX_MODELS, MAX_WIDE, finish, new_canvas
from plots.figures.rows import Rows, lay_rows
from plots.figures.styles import NOISY_RATIO, draw_ratio, ratio_axes, styles_in
from plots.render.blocks import Figure
from plots.text.captions import note, panel_place

MAX_ROWS = 36  # of all batch x length together


def ratio_figure(panel: Panel, path: Path) -> Figure | None:
    """Forward-backward over Full-FT's: rows a training type, the fastest first, by batch x length; axes a model."""
    from matplotlib.lines import Line2D

    models, shapes = panel.subjects[:MAX_MODELS], panel.shapes
    types = shown_types(panel)[: max(MAX_TYPES, MAX_ROWS // len(shapes))]
    if panel.level == "linear" or len(shapes) > MAX_WIDE or not types or not panel.baselines:
        return None
    rows = [Rows(shape_word(s), [(t, (s, t)) for t in _sorted(panel, models, s, types)]) for s in shapes]
    canvas = new_canvas(2.2 + 3.6 * len(models), 0.9 + sum(row.height for row in rows))
    grid = canvas.subplots(1, len(models), squeeze=False, sharex=True, sharey=True)[0]
    places, paint, published = lay_rows(grid[0], rows), styles_in(panel), False
    for axes, model in zip(grid, models, strict=True):
        for (shape, type_), y in places:
            case = panel.find(model, shape, type_)
            draw_ratio(axes, shown_ratio(panel, case), y, paint[type_])
            paper = paper_row(case, panel.clock) if case else None
            if paper and paper.ratio:
                axes.plot(paper.ratio, y, marker="|", mec=INK, ms=12, mew=1.6, ls="", zorder=4)
                published = True
        axes.set_title(model)
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
    ratio_axes(grid)
    label = "the paper's own ratio, forward + backward on an A100"
    keys = [Line2D([], [], marker="|", mec=INK, ms=12, mew=1.6, ls="", label=label)] if published else []
    hollow = f" {NOISY_RATIO}" if any(ratio.noisy for ratio in panel.ratios.values()) else ""
    words = note(panel, f"95 % intervals; grey band: 1 ± 2 %.{hollow}")
    return finish(canvas, path, f"Forward-backward time over Full-FT's: {panel_place(panel)}", words, keys)


def _sorted(panel: Panel, models: list[str], shape: tuple[int, int], types: list[str]) -> list[str]:
    """The fastest on average first; those without a ratio last."""

    def mean(type_: str) -> float:
        found = [shown_ratio(panel, panel.find(m, shape, type_)).value for m in models]
        known = [log(one.value) for one in found if one]
        return sum(known) / len(known) if known else float("inf")

    return sorted(types, key=mean)
