"""An optimizer step of each strategy: the bar of its parts, the whole with its interval, and numbers beside them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import listed
from plots.data.labels import distinct
from plots.data.panels import Panel
from plots.data.strategies import DISAGREE, Strategy, find_strategies
from plots.data.training_runs import paper_ratio
from plots.figures.canvas import FAILED, INK, MAX_MODELS, SOFT, finish, new_canvas
from plots.figures.styles import Style, draw_across, style_of
from plots.render.blocks import Figure
from plots.text.captions import note, panel_place
from plots.text.numbers import ratio_word, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LETTER = 5.2  # points of a letter in the columns at the right
WHOLE = Style(INK, "o", "full", False)
BETWEEN = 14  # points from one column to the next


def steps_figure(panel: Panel, path: Path) -> Figure | None:
    """A row for each strategy and way of computing it, those on the same layers together; axes a model."""
    from matplotlib.patches import Patch

    strategies = find_strategies(panel.results) if panel.level == "model" else []
    if not any(s.step.time for s in strategies):
        return None
    models = list(dict.fromkeys(s.case.subject for s in strategies))[:MAX_MODELS]
    sizes = [sum(s.case.subject == model for s in strategies) for model in models]
    canvas = new_canvas(10.5, 0.2 + sum(0.9 + 0.27 * size for size in sizes))
    grid = canvas.subplots(len(models), squeeze=False, gridspec_kw={"height_ratios": [s + 2 for s in sizes]})[:, 0]
    layers = [*dict.fromkeys(s.case.trainable_layers for s in strategies)]
    for axes, model in zip(grid, models, strict=True):
        of_model = [s for s in strategies if s.case.subject == model]
        _rows(axes, sorted(of_model, key=lambda s: layers.index(s.case.trainable_layers)))
        axes.set_title(model)
    micro = listed(distinct(str(s.case.micro_steps) for s in strategies))
    keys = [
        Patch(facecolor="white", edgecolor=INK, label=f"forward x {micro}"),
        Patch(facecolor=SOFT, edgecolor=INK, label=f"backward x {micro}"),
    ]
    noisy = " Hollow: noisy." * any(s.step.noisy for s in strategies)
    words = note(panel, f"Bars: parts timed one by one; mark: the whole step, timed in one go, 95 % interval.{noisy}")
    return finish(canvas, path, f"Time of an optimizer step: {panel_place(panel)}", words, keys)


def _rows(axes: "Axes", strategies: Sequence[Strategy]) -> None:
    for y, strategy in enumerate(strategies):
        step, style = strategy.step, style_of(strategy.case.method, strategy.case.impl)
        if step.time is None:
            axes.text(0, y, f" {step.status}", va="center", fontsize=8, color=FAILED)
            continue
        micro = [strategy.micro[pass_].time for pass_ in ("forward", "backward")]
        left = 0.0
        for time, face in zip(micro, ("white", style.colour), strict=True):
            size = time.value * strategy.case.micro_steps if time else 0.0
            axes.barh(y, size, 0.66, left, facecolor=face, edgecolor=style.colour, linewidth=0.8, alpha=0.55)
            left += size
        draw_across(axes, step.time, y, WHOLE, step.noisy)
    axes.set_xlim(left=0)
    axes.set_ylim(len(strategies) - 0.4, -0.6)
    axes.set_yticks(range(len(strategies)), [f"{s.name} {s.how}" for s in strategies])
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.set_xlabel("ms for an optimizer step", color=SOFT)
    _columns(axes, strategies)


def _columns(axes: "Axes", strategies: Sequence[Strategy]) -> None:
    """What is too short for a bar, and what the step is worth, as numbers with a head each, right of the axes."""
    columns = [
        ("optimizer\n(ms)", [_ms(s.step.optimizer_ms) for s in strategies]),
        ("refresh\n(ms)", [_ms(s.step.refresh_ms) for s in strategies]),
        ("parts less\nwhole (%)", ["" if s.sum_off is None else f"{100 * s.sum_off:+.1f}" for s in strategies]),
        ("time / LoRA's on\nall layers, same impl", [_to_lora(s) for s in strategies]),
        ("the\npaper's", [f"{r:.3f}" if s.paper and (r := paper_ratio(s.paper)) else "" for s in strategies]),
    ]
    at = BETWEEN / 2
    for head, cells in columns:
        if not any(cells):
            continue
        at += LETTER * max(len(words) for words in (*head.split("\n"), *cells))
        for y, words in ((-0.6, head), *enumerate(cells)):
            wrong = y >= 0 and (strategies[int(y)].step.time is None or DISAGREE in words)
            axes.annotate(
                words, (1, y), (at, 0 if y >= 0 else 3), xycoords=axes.get_yaxis_transform(),
                textcoords="offset points", ha="right", va="center" if y >= 0 else "bottom", fontsize=8,
                color=FAILED if wrong else INK if y >= 0 else SOFT,
            )  # fmt: skip
        at += BETWEEN


def _to_lora(strategy: Strategy) -> str:
    found = strategy.to_lora
    return f"1 (base of {strategy.how})" if found.by_definition else ratio_word(found).removesuffix(" †")


def _ms(value: float | None) -> str:
    return "" if value is None else short(value)
