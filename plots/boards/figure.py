"""Forward-backward over Full-FT's by board, one point with its interval a training type, size and model."""

from pathlib import Path

from plots.boards.side import Side
from plots.boards.sorting import Kin
from plots.boards.text import place_of
from plots.data.panels import MAX_TYPES
from plots.data.results import Ratio
from plots.figures.by_board import board_axes
from plots.figures.canvas import MAX_MODELS, MAX_WIDE, finish
from plots.figures.styles import NOISY_RATIO, key, styles_in
from plots.render.blocks import Figure


def boards_figure(kin: Kin, side: Side, path: Path) -> Figure | None:
    """None without any ratio. Of many models, sizes and training types it says how many it shows."""
    if not side.ratios:
        return None
    first = side.first
    subjects = [s for s in first.subjects if any(c.subject == s for c in side.cases)]
    shapes = [s for s in first.shapes if any(c.size == s for c in side.cases)]
    types = [t for t, cases in side.types.items() if any(p.ratio(c).value for p in side.panels.values() for c in cases)]
    cut = [
        f"{most} of {len(every)} {what}" for every, most, what in (
            (subjects, MAX_MODELS, "layers" if first.level == "linear" else "models"),
            (shapes, MAX_WIDE, "sizes"), (types, MAX_TYPES, "training types"),
        ) if len(every) > most
    ]  # fmt: skip
    if len(shapes) > MAX_WIDE:  # the ends and the middle
        shapes = [shapes[0], shapes[len(shapes) // 2], shapes[-1]]
    every = styles_in(first)
    paint = {type_: every[type_] for type_ in types[:MAX_TYPES]}

    def ratio(subject: str, shape: tuple[int, int], board: str, type_: str) -> Ratio | None:
        case = first.find(subject, shape, type_)
        return side.panels[board].ratio(case) if case in side.cases and case else None

    boards = {name: name for name in side.panels}
    canvas = board_axes(subjects[:MAX_MODELS], shapes, boards, paint, ratio)
    hollow = f" {NOISY_RATIO}" if any(one.noisy for one in side.ratios) else ""
    shown = f" Shown are {', '.join(cut)}; the table has all of them." if cut else ""
    kind = " CPU times, no GPU times." if kin.is_cpu else ""
    words = f"95 % intervals; grey band: 1 ± 2 %.{hollow}{shown}{kind} All conditions: see the table's caption."
    title = f"Forward-backward time over Full-FT's, by {kin.what}: {place_of(side)}"
    return finish(canvas, path, title, words, [key(type_, style) for type_, style in paint.items()])
