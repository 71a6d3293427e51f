"""What all figures share: an empty canvas, and the layout that leaves no text outside it."""

import textwrap
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plots.render.blocks import Figure

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure as Canvas
    from matplotlib.legend import Legend
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

MAX_WIDE = 3  # batch x length that stand side by side
MAX_MODELS = 6  # side by side in one figure; the tables hold the rest
MAX_LAYERS = 40
INK, SOFT, FAILED = "#1c2024", "#66707a", "#8a3b00"
DPI = 140
LEAST = 1.25, 0.45  # inches of axes; where names leave less, the canvas grows
TURNS = 16  # of growing; each adds an inch, or what was found outside
MARGIN = 0.08  # inches around all


def new_canvas(width: float, height: float) -> "Canvas":
    """An empty canvas in the house style: inches of width, and of the height between title and footnote. matplotlib
    is imported here, by those who draw."""
    from matplotlib import rcParams
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    rcParams.update({
        "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"], "font.size": 9,
        "axes.titlesize": 9.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.spines.top": False,
        "axes.spines.right": False, "axes.edgecolor": SOFT, "axes.labelcolor": INK, "xtick.color": INK,
        "ytick.color": INK, "axes.grid": True, "grid.color": "#e5e8ea", "grid.linewidth": 0.7, "axes.axisbelow": True,
        "svg.hashsalt": "lorabench", "svg.fonttype": "none", "hatch.linewidth": 0.5, "text.parse_math": False,
    })  # fmt: skip
    canvas = Canvas(figsize=(width, height), dpi=DPI)
    FigureCanvasAgg(canvas)
    return canvas


def finish(
    canvas: "Canvas",
    path: Path,
    title: str,
    words: str,
    keys: Sequence[object] = (),
    then: Callable[[], object] = tuple,
) -> Figure:
    """Title and legend of `keys` above, one line of words below, both files on disk. `then` draws what needs to know
    how large the axes are.

    Where text would leave the canvas it is wrapped, the legend gets more lines, or the canvas grows. Nothing in the
    files depends on the day they were drawn.
    """
    head = canvas.text(0, 1, title, va="top", fontsize=12, fontweight="bold", color=INK)
    foot = canvas.text(0, 0, words, va="bottom", fontsize=7.5, color=SOFT)
    told = [axes.get_title(loc="left") for axes in canvas.axes]
    titles = [axes.set_title(words) for axes, words in zip(canvas.axes, told, strict=True)]
    width, body = canvas.get_size_inches()
    height = body
    for _ in range(TURNS):
        for found, whole in zip((head, foot), (title, words), strict=True):
            _wrap(found, whole, width - 2 * MARGIN)
        legend = _legend(canvas, keys, width - 2 * MARGIN)
        above, below = _inches(head)[1] + 2 * MARGIN, _inches(foot)[1] + 2 * MARGIN
        height = above + (extent(legend).height / DPI + MARGIN if legend else 0.0) + body + below
        canvas.set_size_inches(width, height)
        head.set_position((MARGIN / width, 1 - MARGIN / height))
        foot.set_position((MARGIN / width, MARGIN / height))
        if legend:
            legend.set_bbox_to_anchor((MARGIN / width, 1 - above / height))
        rect = (0, below / height, 1, (below + body) / height)
        fits = _lay_out(canvas, rect)
        for axes, found, whole in zip(canvas.axes, titles, told, strict=True):
            _wrap(found, whole, max(axes.get_position().width * width, LEAST[0]))
        fits = _lay_out(canvas, rect) and fits
        more = _missing(canvas, fits)
        if more == (0.0, 0.0):
            break
        width, body = width + more[0], body + more[1]
    then()
    canvas.savefig(path.with_suffix(".png"), metadata={"Software": None})
    canvas.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    return Figure(path.name, title)


def extent(found: "Artist") -> "Bbox":
    """In pixels of the canvas."""
    canvas = found.get_figure(root=True)
    assert canvas is not None
    return found.get_window_extent(canvas.canvas.get_renderer())  # type: ignore[attr-defined]


def _inches(found: "Text") -> tuple[float, float]:
    box = extent(found)
    return box.width / DPI, box.height / DPI


def _wrap(found: "Text", words: str, room: float) -> None:
    """Into as many lines as the room in inches asks for."""
    found.set_text(words)
    letters = len(words)
    while letters > 8 and (wide := _inches(found)[0]) > room:
        letters = min(letters - 1, int(letters * max(room / wide, 0.5)) + 1)
        found.set_text("\n".join(textwrap.wrap(words, max(letters, 8))))


def _legend(canvas: "Canvas", keys: Sequence[object], room: float) -> "Legend | None":
    """One legend for all axes, on as few lines as its width in inches allows, all about as long."""
    for old in canvas.legends[:]:
        old.remove()
    columns = len(keys)
    while columns:
        found = canvas.legend(
            handles=[*keys], loc="upper left", ncols=columns, frameon=False, fontsize=9, handlelength=1.6,
            columnspacing=1.4, borderaxespad=0,
        )  # fmt: skip
        if extent(found).width / DPI <= room or columns == 1:
            return found
        found.remove()
        lines = -(-len(keys) // columns)
        columns = min(columns - 1, -(-len(keys) // (lines + 1)))
    return None


def _lay_out(canvas: "Canvas", rect: tuple[float, float, float, float]) -> bool:
    """Whether there was room for the axes and what stands beside them."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        try:
            canvas.tight_layout(rect=rect, h_pad=1.2, w_pad=1.2)
        except UserWarning:
            return False
    return True


def _missing(canvas: "Canvas", fits: bool) -> tuple[float, float]:
    """Inches of width and height by which the canvas is too small."""
    wide, high = canvas.get_size_inches()
    sizes = [(a.get_position().width * wide, a.get_position().height * high) for a in canvas.axes if a.get_visible()]
    narrow, low = (any(size[i] < LEAST[i] for size in sizes) for i in (0, 1))
    keys = [
        text for legend in canvas.legends for text in legend.get_texts()
    ]  # they have no place before they are drawn
    boxes = [extent(found) for found in texts_of(canvas) if found not in keys]
    over = [max([0.0, *(-b.x0 / DPI for b in boxes), *(b.x1 / DPI - wide for b in boxes)])]
    over[0] = max(over[0], *(extent(legend).width / DPI + 2 * MARGIN - wide for legend in canvas.legends), 0.0)
    over += [max([0.0, *(-b.y0 / DPI for b in boxes), *(b.y1 / DPI - high for b in boxes)])]
    x, y = (amount + MARGIN if amount > 0.01 else 0.0 for amount in over)
    if not fits and not (narrow or low):
        narrow = low = True
    return max(x, float(narrow)), max(y, float(low))


def texts_of(canvas: "Canvas") -> "list[Text]":
    """All text that is drawn on a canvas: of labels of ticks, those inside the axis's limits alone."""
    from matplotlib.axis import Axis
    from matplotlib.text import Text

    outside: set[Text] = set()
    for axis in canvas.findobj(Axis):
        drawn = axis._update_ticks()  # type: ignore[attr-defined]
        shown = {label for tick in drawn for label in (tick.label1, tick.label2) if label.get_visible()}
        every = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
        outside |= {label for tick in every for label in (tick.label1, tick.label2)} - shown
        if not axis.axes.get_visible() or not axis.axes.axison:
            outside |= {*axis.findobj(Text)}
    hidden = {found for axes in canvas.axes if not axes.get_visible() for found in axes.findobj(Text)}
    every_text = [found for found in canvas.findobj(Text) if found.get_visible() and found.get_text().strip()]
    return [found for found in every_text if found not in outside | hidden]
