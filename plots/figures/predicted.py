"""The predicted ratio to Full-FT by board: what no measurement has shown yet."""

from pathlib import Path

from bench.case.predictions import SAID, SHOWN
from plots.data.labels import shape_word
from plots.data.predictions import Predictions
from plots.figures.canvas import FAILED, MAX_MODELS, finish, new_canvas
from plots.figures.styles import draw_across, key, ratio_axes, styles
from plots.render.blocks import Figure

MAX_SHAPES = 3


def predicted_figure(found: Predictions, clock: str, path: Path) -> Figure | None:
    """A column of axes a model, a row a batch x length; on each a point a board and training type, its 80 % interval
    as whiskers. None where no ratio is predicted."""
    subjects = list(dict.fromkeys(c.subject for c in found.cases))[:MAX_MODELS]
    shapes = sorted({c.size for c in found.cases}, key=lambda s: (s[0] * s[1], s))[:MAX_SHAPES]
    compared = [c for c in found.cases if any(found.ratio(c, board, clock) for board in found.boards)]
    types = {found.labels[c]: (c.method, c.impl) for c in compared if c.subject in subjects and c.size in shapes}
    if not types:
        return None
    paint = styles(types)
    group = len(types) + 1.0  # slots a board
    width = max(7.0, min(13.0, 1.9 + 3.0 * len(subjects)))
    height = 0.6 + len(shapes) * (0.75 + 0.15 * group * len(found.boards))
    canvas = new_canvas(width, height)
    grid = canvas.subplots(len(shapes), len(subjects), squeeze=False, sharex=True, sharey=True)
    cases = {(c.subject, c.size, found.labels[c]): c for c in found.cases}
    for row, shape in zip(grid, shapes, strict=True):
        for axes, subject in zip(row, subjects, strict=True):
            for b, board in enumerate(found.boards):
                for t, (type_, style) in enumerate(paint.items()):
                    case, y = cases.get((subject, shape, type_)), b * group + t
                    ratio = found.ratio(case, board, clock) if case else None
                    if ratio:
                        draw_across(axes, ratio, y, style)
                    elif case and (word := found.word(case, board)):
                        axes.text(1, y, f" {word}", va="center", fontsize=6.5, color=FAILED)
                if b:
                    axes.axhline(b * group - 1, color="#e5e8ea", lw=0.7)
            axes.set_title(f"{subject}, {shape_word(shape)}")
            axes.grid(False, axis="y")
            axes.tick_params(axis="y", length=0)
    middle = (len(types) - 1) / 2
    grid[0][0].set_yticks([b * group + middle for b in range(len(found.boards))], list(found.boards.values()))
    grid[0][0].set_ylim(group * len(found.boards) - 1, -1)
    ratio_axes([*grid.flat], what="predicted time")
    keys = [key(type_, style) for type_, style in paint.items()]
    words = (
        f"Predicted, not measured; whiskers: {SHOWN} % intervals. Clock {clock}: {SAID.get(clock, clock)}. "
        + ", ".join(dict.fromkeys(c.precision for c in compared))
        + f". {found.provenance}"
    )
    title = f"Predicted {found.headline} time over Full-FT's, by board (clock {clock})"
    return finish(canvas, path, title, words, keys)
