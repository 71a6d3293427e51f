"""Stacked bars: an optimizer step of each strategy by its parts, and the whole with its interval."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import listed
from plots.data.labels import distinct
from plots.data.panels import Panel
from plots.data.strategies import Strategy, find_strategies
from plots.figures.canvas import FAILED, INK, MAX_MODELS, SOFT, finish, new_canvas, whisker
from plots.render.blocks import Figure
from plots.text.captions import conditions_of, panel_place
from plots.text.numbers import ratio_word

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PARTS = (("forward", "#56b4e9"), ("backward", "#0072b2"), ("optimizer", "#e69f00"), ("refresh", "#009e73"))
COLUMNS = 2  # of models side by side


def steps_figure(panel: Panel, path: Path) -> Figure | None:
    """A row of bars for each strategy and way of computing it, one set of axes a model."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    strategies = find_strategies(panel.results) if panel.level == "model" else []
    if not any(s.step.time for s in strategies):
        return None
    models = list(dict.fromkeys(s.case.subject for s in strategies))[:MAX_MODELS]
    columns = min(COLUMNS, len(models))
    rows = -(-len(models) // columns)
    most = max(sum(s.case.subject == m for s in strategies) for m in models)
    canvas = new_canvas(6.6 * columns if columns > 1 else 8.5, rows * (0.9 + 0.27 * most) + 1.2)
    grid = canvas.subplots(rows, columns, squeeze=False).flatten()
    for axes, model in zip(grid, models, strict=False):
        _bars(axes, [s for s in strategies if s.case.subject == model])
        axes.set_title(model, loc="left")
    for axes in grid[len(models) :]:
        axes.set_visible(False)
    handles: list[object] = [Patch(facecolor=colour, label=name) for name, colour in PARTS]
    handles.append(Line2D([], [], marker="o", ms=4, color=INK, ls="", label="whole step, 95 % interval"))
    canvas.legend(handles=handles, loc="upper left", ncols=5, frameon=False, fontsize=9, handlelength=1.2)
    micro = listed(distinct(str(s.case.micro_steps) for s in strategies))
    words = (
        f"Bars: {micro} forwards and as many backwards, each timed micro-step by micro-step, then optimizer and PaCA's "
        "column refresh. Point: the whole step, timed in one go. Right: its ratio to LoRA's on all layers, of the same "
        f"way of computing it. {conditions_of(panel.results, [s.case for s in strategies], strategies[0].step.clock)}"
    )
    return finish(canvas, path, f"Time of an optimizer step: {panel_place(panel)}", words)


def _bars(axes: "Axes", strategies: Sequence[Strategy]) -> None:
    top = 0.0
    for y, strategy in enumerate(strategies):
        step = strategy.step
        if step.time is None:
            axes.text(0, y, f" {step.status}", va="center", fontsize=8, color=FAILED)
            continue
        micro = [strategy.micro[pass_].time for pass_ in ("forward", "backward")]
        sizes = [t.value * strategy.case.micro_steps if t else None for t in micro]
        left = 0.0
        for size, (_, colour) in zip([*sizes, step.optimizer_ms, step.refresh_ms], PARTS, strict=True):
            axes.barh(y, size or 0.0, 0.72, left, color=colour, edgecolor="white", linewidth=0.4)
            left += size or 0.0
        low, high = whisker(step.time)
        axes.errorbar(
            step.time.value, y, xerr=[[low], [high]], fmt="o", ms=4, color=INK, elinewidth=1, capsize=2.5, zorder=4
        )
        words, ink = ratio_word(strategy.to_lora), INK if strategy.to_lora.value else FAILED
        axes.text(0.995, y, words, ha="right", va="center", fontsize=8, color=ink, transform=axes.get_yaxis_transform())
        top = max(top, step.time.value + high, left)
    axes.set_xlim(0, top * 1.35 or 1.0)
    axes.set_ylim(len(strategies) - 0.4, -0.6)
    axes.set_yticks(range(len(strategies)), [f"{s.name} {s.how}" for s in strategies])
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.set_xlabel("ms for an optimizer step", color=SOFT)
