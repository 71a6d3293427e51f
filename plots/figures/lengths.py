"""Measured times over tokens, with straight lines through them."""

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
    """Measured times over tokens, with the line fixed + slope x tokens through them."""
    lines = {} if panel.level == "linear" else fit_lengths(panel)
    if not lines:
        return None
    batch = max({key[1] for key in lines}, key=lambda b: sum(key[1] == b for key in lines))
    models = [s for s in panel.subjects if any(key[:2] == (s, batch) for key in lines)][:MAX_MODELS]
    types = panel.types[:MAX_TYPES]
    canvas = new_canvas(max(7.0, min(13.0, 1 + 3.8 * len(models))), 6.6)
    grid = canvas.subplots(2, len(models), squeeze=False)
    for row, pass_ in enumerate(("forward", "backward")):
        for column, model in enumerate(models):
            axes = grid[row][column]
            for type_ in types:
                line = lines.get((model, batch, type_, pass_))
                cases = [c for s in panel.shapes if s[0] == batch and (c := panel.find(model, s, type_))]
                found = [(c.tokens, t) for c in cases if (t := panel.time(c, pass_).time)]
                colour, (mark, dash) = colours(panel)[type_][0], STROKES[types.index(type_) % len(STROKES)]
                if found:
                    spread = np.transpose([whisker(t) for _, t in found])
                    axes.errorbar(
                        [tokens for tokens, _ in found], [t.value for _, t in found], yerr=spread, fmt=mark, ms=5,
                        mfc="none", color=colour, ecolor=INK, elinewidth=0.8, capsize=2,
                    )  # fmt: skip
                if line:
                    ends = np.array([0.0, max(tokens for tokens, _ in found)])
                    axes.plot(ends, line.fixed_ms.value + line.slope_ms.value * ends, color=colour, lw=1.4, ls=dash)
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
            axes.set_title(model if row == 0 else "", loc="left")
            if row == 1:
                axes.set_xlabel("tokens (batch x length)")
            if column == 0:
                axes.set_ylabel(f"{pass_} (ms)")
    legend(canvas, panel, types)
    words = (
        f"time = fixed + slope x tokens, least squares of relative errors; batch {batch}; the line meets the left "
        f"edge at the fixed cost. {caption(panel)}"
    )
    return finish(canvas, path, f"Time over tokens: {panel_place(panel)}", words)
