"""Measured times over tokens, with the fits through them."""

from pathlib import Path

import numpy as np

from plots.data.length_fit import fit_lengths
from plots.data.panels import MAX_TYPES, Panel
from plots.figures.canvas import INK, MAX_MODELS, finish, new_canvas
from plots.figures.styles import key, styles_in, whisker
from plots.render.blocks import Figure
from plots.text.captions import note, panel_place

DASHES = ("-", (0, (4, 3)), (0, (1, 2)), (0, (6, 2, 1, 2)))  # by turns: two lines that lie on each other stay two


def lengths_figure(panel: Panel, path: Path) -> Figure | None:
    """Measured times over tokens, with time = fixed + slope x tokens + square x batch x length^2 through them."""
    every = fit_lengths(panel)
    fitted = [s.case for s in every if s.line]
    if not fitted:
        return None
    batch = max({c.batch for c in fitted}, key=lambda b: sum(c.batch == b for c in fitted))
    models = [m for m in panel.subjects if any((c.subject, c.batch) == (m, batch) for c in fitted)][:MAX_MODELS]
    types, paint = panel.types[:MAX_TYPES], styles_in(panel)
    canvas = new_canvas(max(7.0, min(13.0, 1 + 3.8 * len(models))), 5.6)
    grid = canvas.subplots(2, len(models), squeeze=False, sharey="row")
    for row, pass_ in enumerate(("forward", "backward")):
        for column, model in enumerate(models):
            axes = grid[row][column]
            for s in every:
                if (s.case.subject, s.case.batch, s.pass_) != (model, batch, pass_) or s.type_ not in types:
                    continue
                style, dash = paint[s.type_], DASHES[types.index(s.type_) % len(DASHES)]
                axes.errorbar(
                    [batch * length for length in s.lengths], [t.value for t in s.times_ms],
                    yerr=np.transpose([whisker(t) for t in s.times_ms]), ecolor=INK, elinewidth=0.8, capsize=2,
                    **style.mark(),
                )  # fmt: skip
                if s.line:
                    lengths = np.linspace(0, max(s.lengths), 50)
                    axes.plot(batch * lengths, s.line.at(batch, lengths), color=style.colour, lw=1.4, ls=dash)
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
            axes.set_title(model if row == 0 else "")
            if row == 1:
                axes.set_xlabel("tokens (batch x length)")
            if column == 0:
                axes.set_ylabel(f"{pass_} (ms)")
    words = (
        "Lines: fixed + slope x tokens + square x batch x length^2 (from four lengths on), least squares of relative "
        f"errors; batch {batch}; the fixed cost is at the left edge."
    )
    keys = [key(type_, paint[type_]) for type_ in types]
    return finish(canvas, path, f"Time over tokens: {panel_place(panel)}", note(panel, words), keys)
