"""The predicted ratio to Full-FT by board: what no measurement has shown yet."""

from pathlib import Path

from bench.case.predictions import SAID, SHOWN
from plots.data.predictions import Predictions
from plots.data.results import Ratio
from plots.figures.by_board import board_axes
from plots.figures.canvas import MAX_MODELS, finish
from plots.figures.styles import key, styles
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
    cases = {(c.subject, c.size, found.labels[c]): c for c in found.cases}

    def ratio(subject: str, shape: tuple[int, int], board: str, type_: str) -> Ratio | None:
        case = cases.get((subject, shape, type_))
        return Ratio(found.word(case, board), found.ratio(case, board, clock)) if case else None

    canvas = board_axes(subjects, shapes, found.boards, paint, ratio, "predicted time", hollow=False)
    keys = [key(type_, style) for type_, style in paint.items()]
    words = (
        f"Predicted, not measured; whiskers: {SHOWN} % intervals. Clock {clock}: {SAID.get(clock, clock)}. "
        + ", ".join(dict.fromkeys(c.precision for c in compared))
        + f". {found.provenance}"
    )
    title = f"Predicted {found.headline} time over Full-FT's, by board (clock {clock})"
    return finish(canvas, path, title, words, keys)
