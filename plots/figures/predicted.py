"""The predicted ratio to Full-FT by board: what no measurement has shown yet."""

from pathlib import Path

from bench.case.predictions import SAID, SHOWN
from plots.data.labels import shape_word
from plots.data.predictions import WINNER, Predictions
from plots.figures.canvas import FAILED, INK, MAX_MODELS, finish, hues_of, new_canvas, whisker
from plots.render.blocks import Figure

MAX_SHAPES = 3
MARKS = "osD^v"  # a training type's, where its method has more than it has colours


def predicted_figure(found: Predictions, clock: str, path: Path) -> Figure | None:
    """A column of axes a model, a row a batch x length; on each a point a board and training type, its 80 % interval
    as whiskers. None where no ratio is predicted."""
    from matplotlib.lines import Line2D

    subjects = list(dict.fromkeys(c.subject for c in found.cases))[:MAX_MODELS]
    shapes = sorted({c.size for c in found.cases}, key=lambda s: (s[0] * s[1], s))[:MAX_SHAPES]
    compared = [c for c in found.cases if any(found.ratio(c, board, clock) for board in found.boards)]
    types = {found.labels[c]: c.method for c in compared if c.subject in subjects and c.size in shapes}
    if not types:
        return None
    used: dict[str, int] = {}
    paint = {}
    for type_, method in types.items():
        i = used.setdefault(method, 0)
        used[method] += 1
        hues = hues_of(method)
        paint[type_] = hues[i % len(hues)], MARKS[i // len(hues) % len(MARKS)]
    group = len(types) + 1.0  # slots a board
    columns = max(1, min(len(types), int((2.2 + 3.2 * len(subjects)) / 1.9)))
    legend_lines = -(-len(types) // columns)
    width = max(7.0, min(13.0, 1.9 + 3.0 * len(subjects)))
    height = 1.2 + 0.2 * legend_lines + len(shapes) * (0.75 + 0.15 * group * len(found.boards))
    canvas = new_canvas(width, height)
    grid = canvas.subplots(len(shapes), len(subjects), squeeze=False, sharex=True, sharey=True)
    cases = {(c.subject, c.size, found.labels[c]): c for c in found.cases}
    for row, shape in zip(grid, shapes, strict=True):
        for axes, subject in zip(row, subjects, strict=True):
            for b, board in enumerate(found.boards):
                for t, (type_, (colour, mark)) in enumerate(paint.items()):
                    case, y = cases.get((subject, shape, type_)), b * group + t
                    ratio = found.ratio(case, board, clock) if case else None
                    if ratio:
                        low, high = whisker(ratio)
                        axes.errorbar(ratio.value, y, xerr=[[low], [high]], fmt=mark, ms=5, color=colour, ecolor=INK,
                                      elinewidth=1, capsize=2)  # fmt: skip
                    elif case and (word := found.word(case, board)):
                        axes.text(1, y, f" {word}", va="center", fontsize=6.5, color=FAILED)
                if b:
                    axes.axhline(b * group - 1, color="#e5e8ea", lw=0.7)
            axes.axvline(1, color=INK, lw=1.1, zorder=1)
            axes.set_title(f"{subject}, {shape_word(shape)}", loc="left", fontsize=9)
            axes.grid(False, axis="y")
            axes.tick_params(axis="y", length=0)
    middle = (len(types) - 1) / 2
    grid[0][0].set_yticks([b * group + middle for b in range(len(found.boards))], list(found.boards.values()))
    grid[0][0].set_ylim(group * len(found.boards) - 1, -1)
    for axes in grid[-1]:
        axes.set_xlabel("predicted time / Full-FT's")
    handles = [Line2D([], [], marker=m, color=c, ls="", ms=6, label=t) for t, (c, m) in paint.items()]
    canvas.legend(handles=handles, loc="upper left", ncols=columns, frameon=False, fontsize=8.5, columnspacing=1.4)
    words = (
        f"Predicted, not measured; whiskers: {SHOWN} % intervals. {WINNER} Clock {clock}: {SAID.get(clock, clock)}. "
        + ", ".join(dict.fromkeys(c.precision for c in compared))
        + f". {found.provenance}"
    )
    return finish(canvas, path, f"Predicted {found.headline} time over Full-FT's, by board (clock {clock})", words)
