"""Heat maps of forward-backward over Full-FT's, batch by length."""

from pathlib import Path

import numpy as np

from plots.data.panels import Panel
from plots.figures.canvas import FAILED, INK, MAX_MODELS, finish, new_canvas
from plots.render.blocks import Figure
from plots.text.captions import caption, panel_place

LIMIT = 1.0  # the colours of a heat map end at ratios of 2 and 1/2


def grid_figure(panel: Panel, path: Path) -> Figure | None:
    """Heat maps of forward-backward over Full-FT's, batch by length; needs two of each."""
    batches, lengths = sorted({s[0] for s in panel.shapes}), sorted({s[1] for s in panel.shapes})
    types = panel.compared_types[:4]
    models = panel.subjects[:MAX_MODELS]
    if panel.level == "linear" or len(batches) < 2 or len(lengths) < 2 or not types or not panel.baselines:
        return None
    wide, high = max(0.62 * len(lengths) + 0.8, 2.6), 0.42 * len(batches) + 0.75
    canvas = new_canvas(max(7.0, wide * len(models)), 1.7 + high * len(types))
    grid = canvas.subplots(len(types), len(models), squeeze=False)
    for row, type_ in enumerate(types):
        for column, model in enumerate(models):
            axes = grid[row][column]
            cases = [[panel.find(model, (b, s), type_) for s in lengths] for b in batches]
            ratios = [[panel.ratio(c) if c else None for c in line] for line in cases]
            shade = np.array([[np.log2(r.value.value) if r and r.value else np.nan for r in line] for line in ratios])
            axes.imshow(shade, cmap="PuOr_r", vmin=-LIMIT, vmax=LIMIT, aspect="auto", origin="lower")
            for i, line in enumerate(ratios):
                for j, r in enumerate(line):
                    words = "not\nmeasured" if r is None else f"{r.value.value:.2f}" if r.value else r.word
                    ink = FAILED if r is None or not r.value else "white" if abs(shade[i, j]) > 0.72 * LIMIT else INK
                    size = 8 if len(words) < 7 else 5.5
                    axes.text(j, i, words, ha="center", va="center", fontsize=size, color=ink)
            axes.grid(False)
            axes.set_xticks(range(len(lengths)), [str(s) for s in lengths])
            axes.set_yticks(range(len(batches)), [str(b) for b in batches])
            axes.set_title(f"{model}: {type_}", loc="left", fontsize=9)
            axes.set_ylabel("batch" if column == 0 else "")
            axes.set_xlabel("length" if row == len(types) - 1 else "")
    what = "Forward-backward time over Full-FT's"
    return finish(
        canvas, path, f"{what}: {panel_place(panel)}",
        f"{what} at equal axes: above 1, orange, is slower than Full-FT. {caption(panel)}",
    )  # fmt: skip
