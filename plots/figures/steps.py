"""Stacked bars: an optimizer step of each strategy by its parts, and the whole with its interval."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plots.data.load import Folder
from plots.data.results import Book
from plots.data.strategies import Timed
from plots.figures.canvas import FAILED, INK, MAX_MODELS, SOFT, finish, plt_canvas
from plots.render.blocks import Figure
from plots.text.captions import NOISY, RATIO_PLACES, caption, distinct, listed, place, with_interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STEM = "steps"
PARTS = (("forward", "#56b4e9"), ("backward", "#0072b2"), ("optimizer", "#e69f00"), ("refresh", "#009e73"))
COLUMNS = 2  # of models side by side


def steps_figure(folder: Folder, book: Book, timed: Sequence[Timed], where: Path) -> Figure:
    """A row of bars for each strategy and way of computing it, one set of axes a model."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    models = list(dict.fromkeys(str(t.case.model) for t in timed))[:MAX_MODELS]
    columns = min(COLUMNS, len(models))
    rows = -(-len(models) // columns)
    most = max(sum(t.case.model == m for t in timed) for m in models)
    canvas = plt_canvas(6.6 * columns if columns > 1 else 8.5, rows * (0.9 + 0.27 * most) + 1.2)
    grid = canvas.subplots(rows, columns, squeeze=False).flatten()
    for axes, model in zip(grid, models, strict=False):
        _bars(axes, book, [t for t in timed if t.case.model == model])
        axes.set_title(model, loc="left")
    for axes in grid[len(models) :]:
        axes.set_visible(False)
    handles: list[object] = [Patch(facecolor=colour, label=name) for name, colour in PARTS]
    handles.append(Line2D([], [], marker="o", ms=4, color=INK, ls="", label="whole step, 95 % interval"))
    canvas.legend(handles=handles, loc="upper left", ncols=5, frameon=False, fontsize=9, handlelength=1.2)
    micro = listed(distinct(str(t.case.micro_steps) for t in timed))
    words = (
        f"Bars: {micro} forwards and as many backwards, each timed micro-step by micro-step, then optimizer and PaCA's "
        "column refresh. Point: the whole step, timed in one go. Right: its ratio to LoRA's on all layers, of the same "
        f"way of computing it. {caption(folder, book, [t.case for t in timed], timed[0].step.clock)}"
    )
    return finish(canvas, where, STEM, f"Time of an optimizer step: {place(folder, 'model')}", words)


def _bars(axes: "Axes", book: Book, timed: Sequence[Timed]) -> None:
    top = 0.0
    for y, one in enumerate(timed):
        case, step = one.case, one.step
        if step.time is None:
            axes.text(0, y, f" {step.status}", va="center", fontsize=8, color=FAILED)
            continue
        micro = [book.get(case, pass_, step.clock).time for pass_ in ("forward", "backward")]
        sizes = [None if t is None else t.value * case.micro_steps for t in micro] + [
            step.optimizer_ms,
            step.refresh_ms,
        ]
        left = 0.0
        for size, (_, colour) in zip(sizes, PARTS, strict=True):
            axes.barh(y, size or 0.0, 0.72, left, color=colour, edgecolor="white", linewidth=0.4)
            left += size or 0.0
        whole = step.time
        low, high = whole.low or whole.value, whole.high or whole.value
        axes.errorbar(
            whole.value, y, xerr=[[max(whole.value - low, 0)], [max(high - whole.value, 0)]], fmt="o", ms=4, color=INK,
            elinewidth=1, capsize=2.5, zorder=4,
        )  # fmt: skip
        ratio = book.over(case, one.lora, "LoRA", "step", step.clock)
        told = "" if ratio.value is None else with_interval(ratio.value, RATIO_PLACES)
        told = ("1" if one.lora == case else told) + (f" {NOISY}" if ratio.noisy else "")
        axes.text(0.995, y, told, ha="right", va="center", fontsize=8, color=INK, transform=axes.get_yaxis_transform())
        top = max(top, high, left)
    axes.set_xlim(0, top * 1.3 or 1.0)
    axes.set_ylim(len(timed) - 0.4, -0.6)
    axes.set_yticks(range(len(timed)), [f"{t.strategy} {t.how}" for t in timed])
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.set_xlabel("ms for an optimizer step", color=SOFT)
