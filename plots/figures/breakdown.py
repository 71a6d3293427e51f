"""Stacked bars: GPU work and launch gap of each training type."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from plots.data.breakdown import GPU_CLOCKS, Split
from plots.data.case import Case
from plots.data.length_fit import Estimate
from plots.data.load import Folder
from plots.data.panels import MAX_TYPES, MAX_WIDE, Panel
from plots.data.results import Book
from plots.figures.canvas import FAILED, INK, MAX_MODELS, SOFT, colours, finish, legend, plt_canvas
from plots.render.blocks import Figure
from plots.tables.breakdown import Splits
from plots.text.captions import NOISY, OTHER_CLOCK, caption, listed, place, shape_word

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAP = "//////"  # hatch of the launch gap
MAX_BARS = 96  # in one row of axes; narrower ones have no room for their numbers

Slot = tuple[str, dict[str, Case]]  # name below the axis, cases by training type


def split_figure(folder: Folder, book: Book, panel: Panel, splits: Splits, where: Path) -> Figure | None:
    """Bars of forward and backward: GPU work below, launch gap above it, eager at the top."""
    from matplotlib.patches import Patch

    types = panel.types[:MAX_TYPES]
    drawn = panel.shapes[-1:] if panel.level == "linear" else _some(panel.shapes)
    facets = _facets(panel, types, drawn)
    wanted = [c for _, slots in facets for _, cases in slots for c in cases.values()]
    passes = [p for p in ("forward", "backward") if any((s := splits.get((c, p))) and s.gap for c in wanted)]
    if not passes:
        return None
    widths = [len(slots) for _, slots in facets]
    canvas = plt_canvas(max(7.0, min(13.0, 1.2 + 0.9 * len(facets) + 0.42 * sum(widths) * len(types))), 6.6)
    grid = canvas.subplots(len(passes), len(facets), squeeze=False, gridspec_kw={"width_ratios": widths})
    for row, pass_ in enumerate(passes):
        for column, (name, slots) in enumerate(facets):
            axes = grid[row][column]
            _stacks(axes, panel, splits, slots, types, pass_)
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
    found = [s for c in wanted for p in passes if (s := splits.get((c, p))) and s.gap]
    gpu = [clock for clock in GPU_CLOCKS if any(s.gpu.clock == clock for s in found)]
    words = (
        "Below: GPU work, from clock graph; above: the launch gap, eager less graph, with its part of eager in percent."
        " Whiskers: 95 % intervals of graph and, at the top, of eager. Hollow: a time whose split is not known. "
        + (f"{OTHER_CLOCK} GPU work from clock device. " if "device" in gpu else "")
        + (f"Drawn: {listed([shape_word(s) for s in drawn])}. " if len(drawn) < len(panel.shapes) else "")
        + (f"The first {shown} of {every} {what}; the tables have all. " if shown < every else "")
        + caption(folder, book, panel.cases, *gpu, "eager")
    )
    return finish(canvas, where, "split", f"Where the time goes: {place(folder, panel.level)}", words)


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
                name = (first.model or "no model") if linear else subject
                found.setdefault(name, []).append((str(first.layer) if linear else shape_word(shape), cases))
    facets, room = [], MAX_BARS // len(types)
    for name, slots in list(found.items())[:MAX_MODELS]:
        if room > 0:
            facets.append((name, slots[:room]))
            room -= len(slots[:room])
    return facets


def _stacks(
    axes: "Axes", panel: Panel, splits: Splits, slots: Sequence[Slot], types: Sequence[str], pass_: str
) -> None:
    width, top = 0.84 / len(types), 0.0
    for i, (_, cases) in enumerate(slots):
        for j, type_ in enumerate(types):
            split = splits.get((cases[type_], pass_)) if type_ in cases else None
            x = i + (j - (len(types) - 1) / 2) * width
            top = max(top, _stack(axes, x, width, colours(panel)[type_], split))
    axes.set_ylim(0, top * 1.2 or 1.0)
    axes.set_xticks(range(len(slots)), [name for name, _ in slots])
    axes.set_xlim(-0.5, len(slots) - 0.5)
    axes.tick_params(axis="x", length=0)
    axes.grid(False, axis="x")


def _stack(axes: "Axes", x: float, width: float, paint: tuple[str, str], split: Split | None) -> float:
    """One bar, or what is known of it, or the word that stands in its place; returns its height."""
    colour, hatch = paint
    eager = split.eager.time if split else None
    gpu = split.gpu.time if split else None
    for time in (t for t in (gpu, eager) if t):
        _whisker(axes, x, time)
    if split is None or eager is None or gpu is None:
        word = split.word if split else "not measured"
        for time in (t for t in (gpu, eager) if t):
            axes.bar(x, time.value, width * 0.94, facecolor="none", edgecolor=SOFT, linewidth=0.8, linestyle="--")
        clock = f" {split.gpu.clock}" if split and eager else " eager" if gpu else ""
        axes.text(x, 0, f"{clock} {word}", rotation=90, ha="center", va="bottom", fontsize=7.5, color=FAILED)
        return max((t.high or t.value for t in (gpu, eager) if t), default=0.0)
    axes.bar(x, gpu.value, width * 0.94, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5)
    if eager.value > gpu.value:
        axes.bar(
            x, eager.value - gpu.value, width * 0.9, gpu.value, facecolor="white", hatch=GAP, edgecolor=colour,
            linewidth=0.8,
        )  # fmt: skip
    high = max(eager.high or eager.value, gpu.high or gpu.value)
    marks = (f" {OTHER_CLOCK}" if split.gpu.clock != GPU_CLOCKS[0] else "") + (f" {NOISY}" if split.noisy else "")
    share = split.share.value if split.share else 0.0
    axes.annotate(
        f"{round(share)} %{marks}", (x, high), (0, 3), textcoords="offset points", rotation=90, ha="center",
        va="bottom", fontsize=7.5, color=INK,
    )  # fmt: skip
    return high


def _whisker(axes: "Axes", x: float, time: Estimate) -> None:
    low, high = time.low or time.value, time.high or time.value
    axes.errorbar(
        x, time.value, yerr=[[max(time.value - low, 0)], [max(high - time.value, 0)]], fmt="none", ecolor=INK,
        elinewidth=0.9, capsize=2, capthick=0.9, zorder=3,
    )  # fmt: skip
