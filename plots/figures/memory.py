"""Time against peak memory: what a training type costs in both, and where the device's memory ends."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from bench.case import Case
from bench.record.stats import Estimate
from plots.data.labels import shape_word
from plots.data.methods import option_words
from plots.data.panels import MAX_TYPES, Panel
from plots.data.throughput import trained_pass
from plots.figures.canvas import FAILED, INK, SOFT, finish, new_canvas
from plots.figures.placing import Named, place_names
from plots.figures.styles import key, styles_in, whisker
from plots.render.blocks import Figure
from plots.text.captions import note, panel_place

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_TYPES = 24  # of which a legend can tell
MODELS, SHAPES = 3, 2  # side by side, and below each other
NEAR = 0.4  # of the device's memory; where the highest peak is below it, the limit is told and no line is drawn

Point = tuple[float, Estimate, bool, str]  # GiB, ms, noisy, training type


def memory_figure(panel: Panel, path: Path) -> Figure | None:
    """Axes a model and batch x length, a point a training type: named beside it where they are few, else in a legend,
    without those with an option. None where no peak memory is on record, as on a CPU."""
    panel = panel.by_wall
    few = len(panel.types) <= MAX_TYPES
    plain = [panel.labels[c] for c in panel.cases if few or not c.has_options]
    types = [t for t in panel.types if t in plain][:MOST_TYPES]
    pass_, peaks = trained_pass(panel), panel.results.peaks_mib
    found: dict[tuple[str, tuple[int, int]], list[Point]] = {}
    for case in panel.cases:
        cell = panel.time(case, pass_)
        if (mib := peaks.get(case)) and cell.time and panel.labels[case] in types:
            points = found.setdefault((case.subject, case.size), [])
            points.append((mib / 1024, cell.time, cell.noisy, panel.labels[case]))
    if panel.level == "linear" or not found:
        return None
    every = [shape for shape in panel.shapes if any(size == shape for _, size in found)]
    models = [m for m in panel.subjects if any(model == m for model, _ in found)][:MODELS]
    shapes = every[-SHAPES:]
    canvas = new_canvas(1.0 + 3.9 * max(len(models), 2), 0.3 + 2.9 * len(shapes))
    grid = canvas.subplots(len(shapes), len(models), squeeze=False)
    named: list[tuple[Axes, list[Named]]] = []
    limit = panel.results.folder.run.get("memory_mib")
    for line, shape in zip(grid, shapes, strict=True):
        for axes, model in zip(line, models, strict=True):
            points = found.get((model, shape), [])
            axes.set_title(f"{model}, {shape_word(shape)}")
            if points:
                drawn = _points(axes, panel, points)
                named += [(axes, drawn)] * few
                _limit(axes, max(p[0] for p in points), limit / 1024 if limit else None)
                _failed(axes, [panel.find(model, shape, t) for t in panel.types], panel)
            else:
                axes.set_axis_off()
                axes.text(0.5, 0.5, "not measured", ha="center", color=FAILED, transform=axes.transAxes)
        line[0].set_ylabel(f"{'optimizer step' if pass_ == 'step' else pass_} ({panel.unit[0]})")
    for axes in grid[-1]:
        axes.set_xlabel("peak memory (GiB)")
    left = f" The {SHAPES} largest of {len(every)} sizes." if len(every) > SHAPES else ""
    words = f"Left and below is better; dashed: Full-FT; large: fused kernels; whiskers: 95 % intervals.{left}"
    noisy = any(p[2] for points in found.values() for p in points)
    words = note(panel, words + " Hollow: noisy." * noisy)

    def names_of_points() -> None:
        for axes, names in named:
            place_names(axes, names)

    paint, shown = styles_in(panel), {p[3] for points in found.values() for p in points}
    keys = [] if few else [key(t, paint[t]) for t in types if t in shown]
    return finish(canvas, path, f"Time against memory: {panel_place(panel)}", words, keys, names_of_points)


def _points(axes: "Axes", panel: Panel, points: list[Point]) -> list[Named]:
    """Draws them; returns the names that are to stand beside them."""
    paint, by = styles_in(panel), panel.unit[1]
    full = {panel.labels[c] for c in panel.cases if panel.is_full(c) and not option_words(c)}
    named = []
    for gib, found, noisy, type_ in points:
        time, style = found.times(by), paint[type_]
        low, high = whisker(time)
        axes.errorbar(
            gib, time.value, yerr=[[low], [high]], ecolor=INK, elinewidth=0.9, capsize=2, zorder=3, **style.mark(noisy)
        )
        if type_ in full:
            for line, at in ((axes.axhline, time.value), (axes.axvline, gib)):
                line(at, color=SOFT, lw=0.8, ls=(0, (4, 3)), zorder=1)
        named.append(Named(type_, gib, time.value, time.value - low, time.value + high, style.large))
    low, high = (
        f(end(t.times(by)) for _, t, _, _ in points)
        for f, end in ((min, lambda t: t.value - whisker(t)[0]), (max, lambda t: t.value + whisker(t)[1]))
    )
    room = 0.16 * (high - low) or 0.1 * high
    axes.set_ylim(low - room, high + room)
    return named


def _limit(axes: "Axes", most: float, limit: float | None) -> None:
    """The device's memory in GiB as a line, or in words where it is far off."""
    near = limit is not None and most > NEAR * limit
    axes.set_xlim(0, 1.06 * max(limit, most) if limit and near else 1.5 * most)
    if limit is None:
        return
    if near:
        axes.axvline(limit, color=FAILED, lw=1.6, zorder=2)
    words = f"this GPU has {limit:.3g} GiB" + ("" if near else " →")
    axes.text(limit if near else 1.0, 1.0, f"{words} ", ha="right", va="bottom", fontsize=7.5, color=FAILED,
              transform=axes.get_xaxis_transform() if near else axes.transAxes)  # fmt: skip


def _failed(axes: "Axes", cases: list[Case | None], panel: Panel) -> None:
    """Names what has no time for want of memory."""
    failed = panel.results.failures
    names = [panel.labels[c] for c in cases if c in failed and failed[c].status == "oom"]
    if names:
        words = "\n".join(textwrap.wrap(f"out of memory: {', '.join(names)}", 44))
        axes.text(0.02, 0.98, words, ha="left", va="top", fontsize=7.5, color=FAILED, transform=axes.transAxes)
