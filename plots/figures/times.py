"""Bars of forward and backward time with their intervals, by model and batch x length."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plots.data.labels import shape_word
from plots.data.panels import MAX_TYPES, Panel
from plots.figures.canvas import (
    INK,
    MAX_MODELS,
    MAX_WIDE,
    colours,
    finish,
    legend,
    mark_bar,
    mark_missing,
    new_canvas,
    offset,
    slots,
    whisker,
)
from plots.render.blocks import Figure
from plots.text.captions import caption, panel_place

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH = 0.84  # of all bars of a batch x length


def times_figure(panel: Panel, path: Path) -> Figure | None:
    """A row of axes a pass, a column a model."""
    if panel.level == "linear" or len(panel.shapes) > MAX_WIDE:
        return None
    models, types = panel.subjects[:MAX_MODELS], panel.types[:MAX_TYPES]
    wide = 1.2 + len(models) * (0.9 + 0.42 * len(panel.shapes) * len(types))
    canvas = new_canvas(max(9.5, min(13.0, wide)), 6.6)
    grid = canvas.subplots(2, len(models), squeeze=False)
    for row, pass_ in enumerate(("forward", "backward")):
        for column, model in enumerate(models):
            axes = grid[row][column]
            _bars(axes, panel, model, pass_, types)
            axes.set_title(model if row == 0 else "", loc="left")
            if column == 0:
                axes.set_ylabel(f"{pass_} (ms)")
    legend(canvas, panel, types)
    title = f"Forward and backward time, lower is faster: {panel_place(panel)}"
    return finish(canvas, path, title, caption(panel) + " Whiskers: 95 % interval of the median.")


def _bars(axes: "Axes", panel: Panel, model: str, pass_: str, types: Sequence[str]) -> None:
    paint, top = colours(panel), 0.0
    for i, shape in enumerate(panel.shapes):
        for j, type_ in enumerate(types):
            x, case = i + offset(j, len(types), WIDTH), panel.find(model, shape, type_)
            cell = panel.time(case, pass_) if case else None
            if cell is None or cell.time is None:
                mark_missing(axes, x, cell.status if cell else "not measured")
                continue
            time, (low, high) = cell.time.value, whisker(cell.time)
            axes.bar(
                x, time, 0.94 * WIDTH / len(types), color=paint[type_][0], hatch=paint[type_][1], edgecolor="white",
                linewidth=0.5, yerr=[[low], [high]], capsize=2,
                error_kw={"elinewidth": 0.9, "capthick": 0.9, "ecolor": INK},
            )  # fmt: skip
            mark_bar(axes, x, time + high, f"{time:#.3g}".rstrip(".") if time < 1000 else f"{time:.0f}")
            top = max(top, time + high)
    axes.set_ylim(0, top * 1.22 or 1.0)
    slots(axes, [shape_word(s) for s in panel.shapes])
