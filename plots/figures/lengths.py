"""Measured times over tokens, with the fits through them."""

from pathlib import Path

import numpy as np

from plots.data.length_fit import fit_lengths
from plots.data.panels import MAX_TYPES, Panel
from plots.figures.canvas import INK, MAX_MODELS, colours, finish, legend, new_canvas, whisker
from plots.render.blocks import Figure
from plots.text.captions import caption, panel_place

# Marker and dash of a training type: two lines that lie on each other stay two.
STROKES = (("o", "-"), ("s", "-"), ("^", (0, (4, 3))), ("D", (0, (1, 2))), ("v", (0, (6, 2, 1, 2))))


def lengths_figure(panel: Panel, path: Path) -> Figure | None:
    """Measured times over tokens, with time = fixed + slope x tokens + square x batch x length^2 through them."""
    every = fit_lengths(panel)
    fitted = [s.case for s in every if s.line]
    if not fitted:
        return None
    batch = max({c.batch for c in fitted}, key=lambda b: sum(c.batch == b for c in fitted))
    models = [m for m in panel.subjects if any((c.subject, c.batch) == (m, batch) for c in fitted)][:MAX_MODELS]
    types = panel.types[:MAX_TYPES]
    canvas = new_canvas(max(7.0, min(13.0, 1 + 3.8 * len(models))), 6.6)
    grid = canvas.subplots(2, len(models), squeeze=False)
    for row, pass_ in enumerate(("forward", "backward")):
        for column, model in enumerate(models):
            axes = grid[row][column]
            for s in every:
                if (s.case.subject, s.case.batch, s.pass_) != (model, batch, pass_) or s.type_ not in types:
                    continue
                colour, (mark, dash) = colours(panel)[s.type_][0], STROKES[types.index(s.type_) % len(STROKES)]
                axes.errorbar(
                    [batch * length for length in s.lengths], [t.value for t in s.times_ms],
                    yerr=np.transpose([whisker(t) for t in s.times_ms]), fmt=mark, ms=5, mfc="none", color=colour,
                    ecolor=INK, elinewidth=0.8, capsize=2,
                )  # fmt: skip
                if s.line:
                    lengths = np.linspace(0, max(s.lengths), 50)
                    axes.plot(batch * lengths, s.line.at(batch, lengths), color=colour, lw=1.4, ls=dash)
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
            axes.set_title(model if row == 0 else "", loc="left")
            if row == 1:
                axes.set_xlabel("tokens (batch x length)")
            if column == 0:
                axes.set_ylabel(f"{pass_} (ms)")
    legend(canvas, panel, types)
    words = (
        "time = fixed + slope x tokens + square x batch x length^2 (attention; from four lengths on), least squares of "
        f"relative errors; batch {batch}; a line meets the left edge at the fixed cost. {caption(panel)}"
    )
    return finish(canvas, path, f"Time over tokens: {panel_place(panel)}", words)
