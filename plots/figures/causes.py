"""Stacked bars: what the time of a pass goes into, Full-FT's beside that of each training type."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.case.causes import CAUSES
from bench.errors import listed
from bench.record.causes import Split
from plots.data.causes import Told, cases_at, causes_in, longest_places, passes_of, told
from plots.data.labels import shape_word
from plots.data.panels import Panel
from plots.figures.canvas import FAILED, INK, finish, new_canvas
from plots.figures.styles import whisker
from plots.render.blocks import Figure
from plots.text.captions import note, panel_place
from plots.text.numbers import short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MODELS, TYPES = 3, 14  # side by side
LEAST = 0.01  # part of a bar; a cause that is below it in every bar is drawn with the others that are
OTHER = "other"
NAME = 26  # letters of a training type's name on one line

# Colour and hatch of each cause. Hues go by family: blue the base's GEMMs, orange and yellow what the method adds,
# green and purple what stays the same, pink what is due once a step. Every two differ in lightness by 15 of 100 or in
# their hatch, so that neighbours are told apart in grey too.
PAINT = {
    "base_forward": ("#00436b", ""),
    "base_dx": ("#0072b2", "//"),
    "base_dw": ("#7abde8", ""),
    "branch": ("#d55e00", ""),
    "elementwise": ("#f7c08a", "//"),
    "gathers": ("#8c3d00", ".."),
    "dropout": ("#e69f00", "xx"),
    "casts": ("#f5ea70", ""),
    "fused": ("#00634a", "||"),
    "attention": ("#009e73", "\\\\"),
    "norms": ("#a6dfcb", ".."),
    "outside": ("#5c3d75", "xx"),
    "accumulation": ("#cc79a7", "//"),
    "optimizer": ("#efcfe0", "\\\\"),
    "refresh": ("#7a1f4f", "--"),
    "gaps": ("#ffffff", "////"),
    "left_over": ("#c4c9ce", "oo"),
    OTHER: ("#8d959c", "++"),
}


def causes_figure(panel: Panel, path: Path) -> Figure | None:
    """A row of axes a pass, a column a model at its longest time; a bar for each training type."""
    from matplotlib.patches import Patch

    passes, shown, (unit, by) = passes_of(panel), longest_places(panel, MODELS), panel.unit
    cases = {place: cases_at(panel, place)[:TYPES] for place in shown}
    found = {(c, p): told(panel, c, p) for of_place in cases.values() for c in of_place for p in passes}
    splits = [one.split for one in found.values() if one.split]
    if not splits:
        return None
    drawn = [cause for cause in causes_in(splits) if any(_part(split, cause) >= LEAST for split in splits)]
    rest = [cause for cause in causes_in(splits) if cause not in drawn]
    types = [type_ for type_ in panel.types if any(panel.labels[c] == type_ for c, _ in found)]
    names = ["\n".join(textwrap.wrap(type_, NAME)) for type_ in types]
    slots = sum(0.27 if "\n" not in name else 0.17 * (1 + name.count("\n")) for name in names)
    keys = [*drawn, *([OTHER] if rest else [])]
    width = 2.2 + max(6.4, 3.6 * len(shown))
    canvas = new_canvas(width, 0.3 + len(passes) * (0.75 + slots))
    grid = canvas.subplots(len(passes), len(shown), squeeze=False, sharey=True)
    for row, pass_ in enumerate(passes):
        for axes, place in zip(grid[row], shown, strict=True):
            rows = {types.index(panel.labels[case]): found[case, pass_] for case in cases[place]}
            top = max(_bar(axes, panel, y, one, drawn, by) for y, one in rows.items())
            axes.set_xlim(0, top * 1.14 or 1.0)
            axes.set_title(f"{pass_}: {place[0]}, {shape_word(place[1])}")
            axes.grid(False, axis="y")
            axes.tick_params(axis="y", length=0)
        grid[row][0].set_yticks(range(len(types)), names)
        grid[row][0].set_ylim(len(types) - 0.45, -0.55)
    for axes in grid[-1]:
        axes.set_xlabel(unit)
    labels = {cause: CAUSES[cause].label if cause in CAUSES else OTHER for cause in keys}
    handles = [
        Patch(facecolor=PAINT[c][0], hatch=PAINT[c][1] * 2, edgecolor=INK, linewidth=0.5, label=labels[c]) for c in keys
    ]
    what = "layers" if panel.level == "linear" else "models"
    words = (
        "Diamonds: the measured median with its 95 % interval. "
        + (
            f"Other: {listed([CAUSES[c].label for c in rest])}, each below {100 * LEAST:.0f} % of every bar. "
            if rest
            else ""
        )
        + (f"{len(shown)} of {len(panel.subjects)} {what}. " if len(shown) < len(panel.subjects) else "")
    )
    title = f"What the time goes into, by cause: {panel_place(panel)}"
    return finish(canvas, path, title, note(panel, words.strip()), handles)


def _part(split: Split, cause: str) -> float:
    return split.parts[cause].ms / split.total_ms if cause in split.parts and split.total_ms else 0.0


def _bar(axes: "Axes", panel: Panel, y: float, found: Told, drawn: Sequence[str], by: float) -> float:
    """The bar of a pass with its median, or the word that stands in its place; returns how far it reaches."""
    time = panel.time(found.case, found.pass_).time
    if found.split is None or time is None:
        axes.text(0, y, f" {found.word}", va="center", fontsize=7.5, color=FAILED)
        return 0.0
    ms = {cause: part.ms for cause, part in found.split.parts.items() if cause in drawn}
    ms[OTHER] = found.split.total_ms - sum(ms.values())
    left = 0.0
    for cause, (colour, hatch) in PAINT.items():
        if (width := by * ms.get(cause, 0.0)) > 0:
            axes.barh(y, width, 0.74, left, color=colour, hatch=hatch * 2, edgecolor=INK, linewidth=0.5)
            left += width
    low, high = whisker(time.times(by))
    axes.errorbar(
        by * time.value, y, xerr=[[low], [high]], fmt="D", ms=3.5, color=INK, mfc="white", elinewidth=1, capsize=2.5,
        zorder=4,
    )  # fmt: skip
    end = max(by * time.value + high, left)
    axes.annotate(short(by * time.value), (end, y), (5, 0), textcoords="offset points", va="center", fontsize=8)
    return end
