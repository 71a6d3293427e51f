"""Stacked bars: GPU work and launch gap of each training type."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.case import Case
from plots.data.breakdown import GPU_CLOCKS, Breakdown, has_both
from plots.data.labels import shape_word
from plots.data.panels import MAX_TYPES, Panel
from plots.figures.canvas import FAILED, INK, MAX_WIDE, SOFT, finish, new_canvas
from plots.figures.rows import Rows, lay_rows
from plots.figures.styles import styles_in, whisker
from plots.render.blocks import Figure
from plots.text.captions import note, panel_place
from plots.text.numbers import OTHER_CLOCK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GAP = "//////"  # hatch of the launch gap
MAX_BARS = 48  # below each other
MAX_COLUMNS = 4  # of axes

Facet = tuple[str, list[Rows[Case]]]  # title, and the bars in groups


def breakdown_figure(panel: Panel, path: Path) -> Figure | None:
    """Bars of forward and backward: GPU work first, the launch gap after it, eager at the end. Axes a model, with rows
    by batch x length or by layer; the axes of a pass have one scale."""
    from matplotlib.patches import Patch

    if panel.level == "linear" and len(panel.types) > MAX_TYPES:
        return None
    drawn = panel.shapes[-1:] if panel.level == "linear" else _some(panel.shapes)
    facets = _facets(panel, drawn)
    cases = [case for _, groups in facets for group in groups for _, case in group.lines]
    both = [case for case in cases if has_both(panel.results, case)]
    passes = [p for p in ("forward", "backward") if any(panel.breakdown(c, p).gap for c in both)]
    if not passes:
        return None
    high = max(sum(group.height for group in groups) for _, groups in facets)
    alike = len({tuple((g.heading, *(n for n, _ in g.lines)) for g in groups) for _, groups in facets}) == 1
    canvas = new_canvas(2.0 + 3.2 * max(len(facets), 2), 0.2 + len(passes) * (0.55 + high))
    grid = canvas.subplots(len(passes), len(facets), squeeze=False, sharex="row", sharey=alike)
    for line, pass_ in zip(grid, passes, strict=True):
        for i, (axes, (name, groups)) in enumerate(zip(line, facets, strict=True)):
            for case, y in lay_rows(axes, groups, named=not (alike and i)):
                _bar(axes, y, styles_in(panel)[panel.labels[case]].colour, panel.breakdown(case, pass_))
            axes.set_title(f"{pass_}: {name}")
            axes.grid(False, axis="y")
            axes.tick_params(axis="y", length=0)
        line[0].set_xlim(0, max(axes.dataLim.x1 for axes in line) * 1.16 or 1.0)
    for axes in grid[-1]:
        axes.set_xlabel("ms")
    gap = Patch(facecolor="white", edgecolor=INK, hatch=GAP, linewidth=0.8, label="launch gap; number: part of eager")
    work = Patch(facecolor=SOFT, label="GPU work")
    found = [b for c in both for p in passes if (b := panel.breakdown(c, p)).gap]
    gpu = [clock for clock in GPU_CLOCKS if any(b.gpu.clock == clock for b in found)]
    words = (
        "Whiskers: 95 % intervals of GPU work and of eager. Dashed: could not be broken down."
        + " Hollow: noisy." * any(b.noisy for b in found)
        + f" {OTHER_CLOCK} GPU work from clock device." * ("device" in gpu)
        + _left_out(panel, cases, drawn)
    )
    title = f"Where the time goes: {panel_place(panel)}"
    return finish(canvas, path, title, note(panel, words, *gpu, "eager"), [work, gap])


def _left_out(panel: Panel, cases: Sequence[Case], drawn: Sequence[tuple[int, int]]) -> str:
    what, shown = "layers" if panel.level == "linear" else "models", len({c.subject for c in cases})
    told = [f"{shown} of {len(panel.subjects)} {what}"] if shown < len(panel.subjects) else []
    told += [f"{len(drawn)} of {len(panel.shapes)} sizes"] if len(drawn) < len(panel.shapes) else []
    return f" Drawn: {', '.join(told)}." if told else ""


def _some(shapes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """All of a few shapes; of many the smallest, the middle one and the largest."""
    return shapes if len(shapes) <= MAX_WIDE else [shapes[0], shapes[len(shapes) // 2], shapes[-1]]


def _facets(panel: Panel, shapes: Sequence[tuple[int, int]]) -> list[Facet]:
    """Columns of axes: models with rows by batch x length, or with rows by layer."""
    types, found = panel.types[:MAX_TYPES], dict[str, list[Rows[Case]]]()
    for subject in panel.subjects:
        for shape in shapes:
            lines = [(t, c) for t in types if (c := panel.find(subject, shape, t))]
            if not lines:
                continue
            case = lines[0][1]
            linear = panel.level == "linear"
            groups = found.setdefault((case.model_name or "no model") if linear else subject, [])
            if sum(len(group.lines) for group in groups) + len(lines) <= MAX_BARS:
                groups.append(Rows(str(case.layer) if linear else shape_word(shape), lines))
    return list(found.items())[:MAX_COLUMNS]


def _bar(axes: "Axes", y: float, colour: str, found: Breakdown) -> None:
    """One bar with the gap's part of eager at its end, or what is known of it and the word why there is none."""
    eager, gpu = found.eager.time, found.gpu.time
    timed = [t for t in (gpu, eager) if t]
    for time in timed:
        low, high = whisker(time)
        axes.errorbar(
            time.value, y, xerr=[[low], [high]], fmt="none", ecolor=INK, elinewidth=0.9, capsize=2, capthick=0.9,
            zorder=3,
        )  # fmt: skip
    end = max((t.value + whisker(t)[1] for t in timed), default=0.0)
    if eager is None or gpu is None:
        for time in timed:
            axes.barh(y, time.value, 0.72, facecolor="none", edgecolor=SOFT, linewidth=0.8, linestyle="--")
        words, ink = f"{f'{found.gpu.clock} ' if eager else 'eager ' if gpu else ''}{found.word}", FAILED
    else:
        axes.barh(y, gpu.value, 0.72, facecolor="none" if found.noisy else colour, edgecolor=colour, linewidth=0.8)
        if eager.value > gpu.value:
            axes.barh(y, eager.value - gpu.value, 0.72, gpu.value, facecolor="white", hatch=GAP, edgecolor=colour,
                      linewidth=0.8)  # fmt: skip
        share = round(found.share.value) if found.share else 0
        words, ink = f"{share} %" + f" {OTHER_CLOCK}" * (found.gpu.clock != GPU_CLOCKS[0]), INK
    axes.annotate(words, (end, y), (4, 0), textcoords="offset points", va="center", fontsize=7.5, color=ink)
