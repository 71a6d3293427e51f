"""Forward-backward over Full-FT's, one point with its interval a training type, batch x length and model."""

from pathlib import Path

from bench.record.stats import RATIO_NOISY
from plots.data.labels import shape_word
from plots.data.panels import MAX_TYPES, Panel
from plots.data.paper import paper_row
from plots.figures.canvas import INK, MAX_MODELS, MAX_WIDE, colours, draw_ratio, finish, legend, new_canvas
from plots.render.blocks import Figure
from plots.text.captions import caption, panel_place
from plots.text.numbers import NOISY


def ratio_figure(panel: Panel, path: Path) -> Figure | None:
    """Forward-backward over Full-FT's, one point with its interval a training type, batch x length and model."""
    from matplotlib.lines import Line2D

    models, shapes, types = panel.subjects[:MAX_MODELS], panel.shapes, panel.compared_types[:MAX_TYPES]
    if panel.level == "linear" or len(shapes) > MAX_WIDE or not types or not panel.baselines:
        return None
    group = len(types) + 1.3  # slots from one batch x length to the next, its name included
    height = 1.75 + 0.25 * group * len(shapes)
    canvas = new_canvas(max(7.0, min(13.0, 2.2 + 3.4 * len(models))), height)
    grid = canvas.subplots(1, len(models), squeeze=False, sharex=True, sharey=True)[0]
    published, paint = False, colours(panel)
    for axes, model in zip(grid, models, strict=True):
        for i, shape in enumerate(shapes):
            for j, type_ in enumerate(types):
                case, y = panel.find(model, shape, type_), i * group + j + 1
                draw_ratio(axes, panel.ratio(case), y, paint[type_][0])
                paper = paper_row(case, panel.clock) if case else None
                if paper and paper.ratio:
                    axes.plot(paper.ratio, y, marker="D", mfc="none", mec=INK, ms=7, ls="", zorder=4)
                    published = True
        axes.axvline(1, color=INK, lw=1.1, zorder=1)
        axes.set_title(model, loc="left")
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("time / Full-FT's")
    names = [
        (i * group + j, shape_word(s) if j == 0 else t)
        for i, s in enumerate(shapes)
        for j, t in enumerate(["", *types])
    ]
    grid[0].set_yticks([y for y, _ in names], [name for _, name in names])
    for tick in grid[0].get_yticklabels()[:: len(types) + 1]:
        tick.set_fontweight("bold")
    grid[0].set_ylim(group * len(shapes) - 0.6, -0.6)
    low, high = grid[0].get_xlim()
    low, high = min(low, 0.95), max(high, 1.05)
    grid[0].set_xlim(low - 0.03 * (high - low), high + 0.62 * (high - low))  # room for the numbers at the right
    if published:
        label = "the paper, forward + backward on an A100"
        legend(canvas, panel, [], [Line2D([], [], marker="D", mfc="none", mec=INK, ls="", label=label)])
    words = f"{caption(panel)} Ratios at equal axes with 95 % intervals; left of the line is faster than Full-FT."
    if any(ratio.noisy for ratio in panel.ratios.values()):
        words += f" {NOISY} an interval wider than +-{100 * RATIO_NOISY:.0f} %."
    return finish(canvas, path, f"Forward-backward time over Full-FT's: {panel_place(panel)}", words)
