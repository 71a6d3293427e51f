"""Figures as PNG and SVG: bars of time, ratios to Full-FT, layers, lines over tokens, heat maps."""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plots.data.load import Folder
from plots.data.panels import MAX_TYPES, MAX_WIDE, Panel
from plots.data.paper import paper_row
from plots.data.results import Book, Ratio
from plots.render.blocks import Figure
from plots.text.captions import caption, place, ratio_word, shape_word

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

MAX_MODELS = 6  # side by side in one figure; the tables hold the rest
INK, SOFT, FAILED = "#1c2024", "#66707a", "#8a3b00"
# Okabe and Ito's palette, told apart by every kind of colour vision: one hue a method, lighter for further impls.
HUES = {
    "full": ("#5b5f63", "#a3a8ad", "#d0d3d6"),
    "lora": ("#d55e00", "#e69f00", "#f3cf8e", "#8c3d00"),
    "paca": ("#0072b2", "#56b4e9", "#b5ddf5", "#00436b"),
}
OTHER = ("#009e73", "#cc79a7", "#7a6fac", "#b8a800")
HATCHES = ("", "//", "..", "xx")


def plt_canvas(width: float, height: float) -> "Canvas":
    """An empty canvas in inches, in the house style. matplotlib is imported here, by those who draw."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import rcParams
    from matplotlib.figure import Figure as Canvas

    rcParams.update({
        "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9, "axes.titlesize": 10,
        "axes.titleweight": "bold", "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": SOFT,
        "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.grid": True, "grid.color": "#e5e8ea",
        "grid.linewidth": 0.7, "axes.axisbelow": True, "svg.hashsalt": "lorabench", "hatch.linewidth": 0.5,
        "text.parse_math": False,
    })  # fmt: skip
    return Canvas(figsize=(width, height))


def finish(canvas: "Canvas", where: Path, stem: str, title: str, words: str) -> Figure:
    """Title above, caption below, both files on disk. Nothing in them depends on the day they were drawn."""
    width, height = canvas.get_size_inches()
    lines = textwrap.wrap(words, int(width * 19))
    low = (0.118 * len(lines) + 0.14) / height
    head = canvas.suptitle(
        title, x=0.01, y=1 - 0.08 / height, ha="left", va="top", fontsize=12, fontweight="bold", color=INK
    )
    canvas.text(0.01, 0.06 / height, "\n".join(lines), ha="left", va="bottom", fontsize=7, color=SOFT)
    head.set_in_layout(False)
    legend = 0.0
    for found in canvas.legends:
        found.set_bbox_to_anchor((0.005, 1 - 0.3 / height))
        legend = 0.08 + 0.2 * -(-len(found.get_texts()) // max(found._ncols, 1))  # type: ignore[attr-defined]
    canvas.tight_layout(rect=(0, low, 1, 1 - (0.32 + legend) / height), h_pad=1.2, w_pad=1.2)
    canvas.savefig(where / f"{stem}.png", dpi=140, metadata={"Software": None})
    canvas.savefig(where / f"{stem}.svg", metadata={"Date": None})
    return Figure(stem, title, words)


def colours(panel: Panel) -> dict[str, tuple[str, str]]:
    """Training type -> (colour, hatch)."""
    found: dict[str, tuple[str, str]] = {}
    used: dict[str, int] = {}
    method = {panel.labels[c]: c.method for c in panel.cases}
    for type_ in panel.types:
        i = used.setdefault(method[type_], 0)
        used[method[type_]] += 1
        hues = HUES.get(method[type_], OTHER)
        found[type_] = hues[i % len(hues)], HATCHES[(i // len(hues)) % len(HATCHES)]
    return found


def legend(canvas: "Canvas", panel: Panel, types: Sequence[str], extra: Sequence[object] = ()) -> None:
    """One legend for all axes, on one line below the title."""
    from matplotlib.patches import Patch

    paint = colours(panel)
    patches: list[object] = [Patch(facecolor=paint[t][0], hatch=paint[t][1], edgecolor="white", label=t) for t in types]
    columns = max(6, int(canvas.get_size_inches()[0] / 1.7))
    canvas.legend(
        handles=[*patches, *extra], loc="upper left", ncols=min(columns, len(types) + len(extra)), frameon=False,
        fontsize=9, handlelength=1.2, columnspacing=1.4,
    )  # fmt: skip


def times_figure(folder: Folder, book: Book, panel: Panel, where: Path) -> Figure | None:
    """Bars of forward and backward time with their intervals, by model and batch x length."""
    models, shapes, types = panel.subjects[:MAX_MODELS], panel.shapes[:MAX_WIDE], panel.types[:MAX_TYPES]
    canvas = plt_canvas(max(7.0, min(13.0, 1.2 + len(models) * (0.9 + 0.42 * len(shapes) * len(types)))), 6.6)
    grid = canvas.subplots(2, len(models), squeeze=False)
    for row, pass_ in enumerate(("forward", "backward")):
        for column, model in enumerate(models):
            axes = grid[row][column]
            _bars(axes, book, panel, model, pass_, shapes, types)
            axes.set_title(model if row == 0 else "", loc="left")
            if column == 0:
                axes.set_ylabel(f"{pass_} (ms)")
    legend(canvas, panel, types)
    words = caption(folder, book, panel.cases, panel.clock) + " Whiskers: 95 % interval of the median."
    return finish(
        canvas, where, "times", f"Forward and backward time, lower is faster: {place(folder, panel.level)}", words
    )


def _bars(
    axes: "Axes", book: Book, panel: Panel, model: str, pass_: str, shapes: Sequence[tuple[int, int]],
    types: Sequence[str],
) -> None:  # fmt: skip
    paint, width = colours(panel), 0.84 / len(types)
    top = 0.0
    for i, shape in enumerate(shapes):
        for j, type_ in enumerate(types):
            x = i + (j - (len(types) - 1) / 2) * width
            case = panel.find(model, shape, type_)
            cell = book.get(case, pass_, panel.clock) if case else None
            if cell is None or cell.time is None:
                word = cell.status if cell else "not measured"
                axes.text(x, 0, f" {word}", rotation=90, ha="center", va="bottom", fontsize=7.5, color=FAILED)
                continue
            time = cell.time
            low, high = time.low or time.value, time.high or time.value
            axes.bar(
                x, time.value, width * 0.94, color=paint[type_][0], hatch=paint[type_][1], edgecolor="white",
                linewidth=0.5, yerr=[[max(time.value - low, 0)], [max(high - time.value, 0)]], capsize=2,
                error_kw={"elinewidth": 0.9, "capthick": 0.9, "ecolor": INK},
            )  # fmt: skip
            axes.annotate(
                f"{time.value:#.3g}".rstrip(".") if time.value < 1000 else f"{time.value:.0f}", (x, high), (0, 3),
                textcoords="offset points", rotation=90, ha="center", va="bottom", fontsize=7.5, color=INK,
            )  # fmt: skip
            top = max(top, high)
    axes.set_ylim(0, top * 1.22 or 1.0)
    axes.set_xticks(range(len(shapes)), [shape_word(s) for s in shapes])
    axes.set_xlim(-0.5, len(shapes) - 0.5)
    axes.tick_params(axis="x", length=0)
    axes.grid(False, axis="x")


def ratio_figure(folder: Folder, book: Book, panel: Panel, where: Path) -> Figure | None:
    """Forward-backward over Full-FT's, one point with its interval a training type, batch x length and model."""
    from matplotlib.lines import Line2D

    models, shapes = panel.subjects[:MAX_MODELS], panel.shapes[-MAX_WIDE:]
    full = {panel.labels[c] for c in panel.cases if book.baseline(c) == c}
    types = [t for t in panel.types if t not in full][:MAX_TYPES]
    if not full or not types:
        return None
    group = len(types) + 1.3  # slots from one batch x length to the next, its name included
    height = 1.75 + 0.25 * group * len(shapes)
    canvas = plt_canvas(max(7.0, min(13.0, 2.2 + 3.4 * len(models))), height)
    grid = canvas.subplots(1, len(models), squeeze=False, sharex=True, sharey=True)[0]
    published = False
    for axes, model in zip(grid, models, strict=True):
        for i, shape in enumerate(shapes):
            for j, type_ in enumerate(types):
                case, y = panel.find(model, shape, type_), i * group + j + 1
                ratio = book.ratio(case, "forward-backward", panel.clock) if case else Ratio("not measured")
                point(axes, ratio, y, colours(panel)[type_][0])
                paper = paper_row(case, panel.clock) if case else None
                if paper and paper.ratio:
                    axes.plot(paper.ratio, y, marker="D", mfc="none", mec=INK, ms=7, ls="", zorder=4)
                    published = True
        axes.axvline(1, color=INK, lw=1.1, zorder=1)
        axes.set_title(model, loc="left")
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("time / Full-FT's")
    names = [
        (i * group + j, shape_word(s) if j == 0 else t)
        for i, s in enumerate(shapes)
        for j, t in enumerate(["", *types])
    ]
    grid[0].set_yticks([y for y, _ in names], [name for _, name in names])
    for tick in grid[0].get_yticklabels()[:: len(types) + 1]:
        tick.set_fontweight("bold")
    grid[0].set_ylim(group * len(shapes) - 0.6, -0.6)
    low, high = grid[0].get_xlim()
    low, high = min(low, 0.95), max(high, 1.05)
    grid[0].set_xlim(low - 0.03 * (high - low), high + 0.42 * (high - low))  # room for the numbers at the right
    if published:
        mark = Line2D([], [], marker="D", mfc="none", mec=INK, ls="", label="the paper, forward + backward on an A100")
        legend(canvas, panel, [], [mark])
    words = caption(folder, book, panel.cases, panel.clock) + (
        " Forward-backward over Full-FT's at equal axes, 95 % intervals; left of the line is faster than Full-FT."
    )
    return finish(canvas, where, "ratio", f"Forward-backward time over Full-FT's: {place(folder, panel.level)}", words)


def point(axes: "Axes", ratio: Ratio, y: float, colour: str, labelled: bool = True, fill: str | None = None) -> None:
    """A ratio with its interval at height y, its number at the right edge, or the word that stands in its place."""
    found = ratio.value
    if labelled or found is None:
        axes.text(
            0.99, y, ratio_word(ratio), ha="right", va="center", fontsize=8, transform=axes.get_yaxis_transform(),
            color=FAILED if found is None else INK,
        )  # fmt: skip
    if found is not None:
        low, high = found.low or found.value, found.high or found.value
        axes.errorbar(
            found.value, y, xerr=[[found.value - low], [high - found.value]], fmt="o", ms=5, color=colour, ecolor=INK,
            elinewidth=1, capsize=2.5, mfc=fill or colour,
        )  # fmt: skip


def draw_all(
    folder: Folder, book: Book, panel: Panel, where: Path,
    makers: Sequence[Callable[[Folder, Book, Panel, Path], Figure | None]],
) -> list[Figure]:  # fmt: skip
    """The figures that the data of a panel support."""
    return [figure for figure in (make(folder, book, panel, where) for make in makers) if figure is not None]
