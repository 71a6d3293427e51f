"""Axes of ratios to Full-FT by board: of what was predicted, and of what was measured."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from plots.data.labels import shape_word
from plots.data.results import Ratio
from plots.figures.canvas import FAILED, new_canvas
from plots.figures.styles import Style, draw_across, ratio_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

Shape = tuple[int, int]
PITCH, DENSE = 0.15, 0.11  # inches from one training type to the next
MANY = 30  # rows of one set of axes, beyond which they are dense


def board_axes(
    subjects: Sequence[str], shapes: Sequence[Shape], boards: Mapping[str, str], paint: dict[str, Style],
    find: Callable[[str, Shape, str, str], Ratio | None], what: str = "time", hollow: bool = True,
) -> "Canvas":  # fmt: skip
    """A column of axes a subject, a row a batch x length; on each a point a board and training type, with its interval,
    or the word that stands in its place. boards: names by key; `find` takes subject, shape, key and training type;
    hollow: noisy ratios are."""
    group = len(paint) + 1.0  # slots a board
    width = max(7.0, min(13.0, 1.9 + 3.0 * len(subjects)))
    pitch = PITCH if group * len(boards) <= MANY else DENSE
    canvas = new_canvas(width, 0.6 + len(shapes) * (0.75 + pitch * group * len(boards)))
    grid = canvas.subplots(len(shapes), len(subjects), squeeze=False, sharex=True, sharey=True)
    for row, shape in zip(grid, shapes, strict=True):
        for axes, subject in zip(row, subjects, strict=True):
            for b, board in enumerate(boards):
                found = [find(subject, shape, board, type_) for type_ in paint]
                words = {type_: r.word for type_, r in zip(paint, found, strict=True) if r and r.word and not r.value}
                if len(words) == len(paint) > 1 and len({*words.values()}) == 1:  # the same of all: said once
                    words = {"": next(iter(words.values()))}
                for t, (style, ratio) in enumerate(zip(paint.values(), found, strict=True)):
                    if ratio and ratio.value:
                        draw_across(axes, ratio.value, b * group + t, style, hollow and ratio.noisy)
                for type_, word in words.items():
                    axes.text(
                        0.99, b * group + ([*paint].index(type_) if type_ else (len(paint) - 1) / 2),
                        f"{type_}: {word}" if type_ else word, ha="right", va="center", fontsize=7, color=FAILED,
                        transform=axes.get_yaxis_transform(),
                    )  # fmt: skip
                if b:
                    axes.axhline(b * group - 1, color="#e5e8ea", lw=0.7)
            axes.set_title(f"{subject}, {shape_word(shape)}".replace(" x ", "\xa0x\xa0"))  # which no line cuts in two
            axes.grid(False, axis="y")
            axes.tick_params(axis="y", length=0)
    middle = (len(paint) - 1) / 2
    grid[0][0].set_yticks([b * group + middle for b in range(len(boards))], [*boards.values()])
    grid[0][0].set_ylim(group * len(boards) - 1, -1)
    ratio_axes([*grid.flat], what=what)
    return canvas
