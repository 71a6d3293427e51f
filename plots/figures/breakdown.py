"""Stacked bars: GPU work and launch gap of each training type."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.case import Case
from bench.errors import listed
from plots.data.breakdown import GPU_CLOCKS, Breakdown, has_both
from plots.data.labels import shape_word
from plots.data.panels import MAX_TYPES, Panel
from plots.figures.canvas import (
    INK,
    MAX_MODELS,
    MAX_WIDE,
    SOFT,
    colours,
    finish,
    legend,
    mark_bar,
    mark_missing,
    new_canvas,
    offset,
    slots,
    whisker,
)
from plots.render.blocks import Figure
from plots.text.captions import caption, panel_place
from plots.text.numbers import OTHER_CLOCK, marked

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAP = "//////"  # hatch of the launch gap
MAX_BARS = 96  # in one row of axes; narrower ones have no room for their numbers
WIDTH = 0.84  # of all bars of a slot

Slot = tuple[str, dict[str, Case]]  # name below the axis, cases by training type


def breakdown_figure(panel: Panel, path: Path) -> Figure | None:
    """Bars of forward and backward: GPU work below, launch gap above it, eager at the top."""
    from matplotlib.patches import Patch

    if panel.level == "linear" and len(panel.types) > MAX_TYPES:
        return None
    types = panel.types[:MAX_TYPES]
    drawn = panel.shapes[-1:] if panel.level == "linear" else _some(panel.shapes)
    facets = _facets(panel, types, drawn)
    wanted = [c for _, bars in facets for _, cases in bars for c in cases.values()]
    both = [c for c in wanted if has_both(panel.results, c)]
    passes = [p for p in ("forward", "backward") if any(panel.breakdown(c, p).gap for c in both)]
    if not passes:
        return None
    widths = [len(bars) for _, bars in facets]
    canvas = new_canvas(max(7.0, min(13.0, 1.2 + 0.9 * len(facets) + 0.42 * sum(widths) * len(types))), 6.6)
    grid = canvas.subplots(len(passes), len(facets), squeeze=False, gridspec_kw={"width_ratios": widths})
    for row, pass_ in enumerate(passes):
        for column, (name, bars) in enumerate(facets):
            axes = grid[row][column]
            _stacks(axes, panel, bars, types, pass_)
            axes.set_title(name if row == 0 else "", loc="left")
            if column == 0:
                axes.set_ylabel(f"{pass_} (ms)")
            if panel.level == "linear":
                axes.tick_params(axis="x", rotation=40 if row == len(passes) - 1 else 0)
                for tick in axes.get_xticklabels():
                    tick.set_horizontalalignment("right")
                    tick.set_rotation_mode("anchor")
                    tick.set_visible(row == len(passes) - 1)
    gap = Patch(facecolor="white", edgecolor=INK, hatch=GAP, linewidth=0.8, label="hatched, above: launch gap")
    legend(canvas, panel, types, [gap])
    shown, every = len({c.subject for c in wanted}), len(panel.subjects)
    what = "layers" if panel.level == "linear" else "models"
    found = [b for c in both for p in passes if (b := panel.breakdown(c, p)).gap]
    gpu = [clock for clock in GPU_CLOCKS if any(b.gpu.clock == clock for b in found)]
    words = (
        "Below: GPU work, from clock graph; above: the launch gap, eager less graph, with its part of eager in percent."
        " Whiskers: 95 % intervals of graph and, at the top, of eager. Hollow: a time that could not be broken down. "
        + (f"{OTHER_CLOCK} GPU work from clock device. " if "device" in gpu else "")
        + (f"Drawn: {listed([shape_word(s) for s in drawn])}. " if len(drawn) < len(panel.shapes) else "")
        + (f"The first {shown} of {every} {what}; the tables have all. " if shown < every else "")
        + caption(panel, *gpu, "eager")
    )
    return finish(canvas, path, f"Where the time goes: {panel_place(panel)}", words)


def _some(shapes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """All of a few shapes; of many the smallest, the middle one and the largest."""
    return shapes if len(shapes) <= MAX_WIDE else [shapes[0], shapes[len(shapes) // 2], shapes[-1]]


def _facets(panel: Panel, types: Sequence[str], shapes: Sequence[tuple[int, int]]) -> list[tuple[str, list[Slot]]]:
    """(title, slots) of each column of axes: models with a slot a batch x length, or with a slot a layer."""
    found: dict[str, list[Slot]] = {}
    for subject in panel.subjects:
        for shape in shapes:
            cases = {t: c for t in types if (c := panel.find(subject, shape, t))}
            if cases:
                first = next(iter(cases.values()))
                linear = panel.level == "linear"
                name = (first.model_name or "no model") if linear else subject
                found.setdefault(name, []).append((str(first.layer) if linear else shape_word(shape), cases))
    facets, room = [], MAX_BARS // len(types)
    for name, of_name in list(found.items())[:MAX_MODELS]:
        if room > 0:
            facets.append((name, of_name[:room]))
            room -= len(of_name[:room])
    return facets


def _stacks(axes: "Axes", panel: Panel, bars: Sequence[Slot], types: Sequence[str], pass_: str) -> None:
    paint, width, top = colours(panel), 0.94 * WIDTH / len(types), 0.0
    for i, (_, cases) in enumerate(bars):
        for j, type_ in enumerate(types):
            x = i + offset(j, len(types), WIDTH)
            if type_ in cases:
                top = max(top, _stack(axes, x, width, paint[type_], panel.breakdown(cases[type_], pass_)))
            else:
                mark_missing(axes, x, "not measured")
    axes.set_ylim(0, top * 1.2 or 1.0)
    slots(axes, [name for name, _ in bars])


def _stack(axes: "Axes", x: float, width: float, paint: tuple[str, str], found: Breakdown) -> float:
    """One bar, or what is known of it, or the word that stands in its place; returns its height."""
    colour, hatch = paint
    eager, gpu = found.eager.time, found.gpu.time
    timed = [t for t in (gpu, eager) if t]
    for time in timed:
        low, high = whisker(time)
        axes.errorbar(
            x, time.value, yerr=[[low], [high]], fmt="none", ecolor=INK, elinewidth=0.9, capsize=2, capthick=0.9,
            zorder=3,
        )  # fmt: skip
    top = max((t.value + whisker(t)[1] for t in timed), default=0.0)
    if eager is None or gpu is None:
        for time in timed:
            axes.bar(x, time.value, width, facecolor="none", edgecolor=SOFT, linewidth=0.8, linestyle="--")
        mark_missing(axes, x, f"{f'{found.gpu.clock} ' if eager else 'eager ' if gpu else ''}{found.word}")
        return top
    axes.bar(x, gpu.value, width, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5)
    if eager.value > gpu.value:
        axes.bar(
            x, eager.value - gpu.value, 0.96 * width, gpu.value, facecolor="white", hatch=GAP, edgecolor=colour,
            linewidth=0.8,
        )  # fmt: skip
    share = found.share.value if found.share else 0.0
    mark_bar(axes, x, top, marked(f"{round(share)} %", found.noisy, found.gpu.clock != GPU_CLOCKS[0]))
    return top
