"""From Full-FT's time to a method's, cause by cause."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.case import Case
from bench.case.causes import CAUSES
from bench.case.schema import BASELINE
from plots.data.causes import Compared, cases_at, compared, passes_of, places
from plots.data.labels import shape_word
from plots.data.panels import Panel
from plots.figures.canvas import INK, SOFT, finish, new_canvas
from plots.figures.styles import FASTER, SLOWER
from plots.render.blocks import Figure
from plots.text.captions import note, panel_place
from plots.text.headline import chosen
from plots.text.numbers import ratio_word, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAIRS = 3  # side by side
LEAST = 0.01  # part of all that causes add and take away; smaller ones are drawn as one
MORE, LESS = (SLOWER, ""), ("white", "////")  # colour and hatch
REST = "all others"


def waterfall_figure(panel: Panel, path: Path) -> Figure | None:
    """A column of axes for each training type of the headline, a row a pass, at the place of the longest time."""
    passes = passes_of(panel)
    pairs = _pairs(panel)[:PAIRS]
    found = {(case, p): one for case in pairs for p in passes if (one := compared(panel, case, p))}
    if all(one.word for one in found.values()):
        return None
    steps = {key: _steps(one) for key, one in found.items() if not one.word}
    rows = {p: _rows([steps[key] for key in steps if key[1] == p]) for p in passes}
    heights = [0.75 + 0.24 * max(len(rows[p]), 2) for p in passes]
    canvas = new_canvas(2.0 + max(5.6, 3.7 * len(pairs)), 0.5 + sum(heights))
    grid = canvas.subplots(len(passes), len(pairs), squeeze=False, sharey="row", gridspec_kw={"height_ratios": heights})
    for i, pass_ in enumerate(passes):
        for axes, case in zip(grid[i], pairs, strict=True):
            one = found.get((case, pass_))
            _draw(axes, panel, case, pass_, one, steps.get((case, pass_)), rows[pass_])
        grid[i][0].set_yticks(range(len(rows[pass_])), rows[pass_])
        grid[i][0].set_ylim(max(len(rows[pass_]), 2) - 0.4, -0.6)
    for axes in grid[-1]:
        axes.set_xlabel(panel.unit[0])
    subject, size = places(panel)[0]
    words = (
        f"Purple: more than Full-FT; green, hatched: less; {REST}: each below {100 * LEAST:.0f} %. Diamonds: "
        f"the two medians. The axes do not begin at 0."
    )
    return finish(
        canvas,
        path,
        f"From Full-FT's time to the method's: {subject} at {shape_word(size)}, {panel_place(panel)}",
        note(panel, words),
    )


def _pairs(panel: Panel) -> list[Case]:
    """Of each method the training type that the headline tells of, or the first, at the longest time."""
    told = {case.method: panel.labels[case] for case in chosen(panel)}
    first: dict[str, Case] = {}
    for case in cases_at(panel, places(panel)[0]) if places(panel) else ():
        is_told = case.method != BASELINE and panel.labels[case] == told.get(case.method, panel.labels[case])
        if is_told and any(compared(panel, case, pass_) for pass_ in passes_of(panel)):
            first.setdefault(case.method, case)
    return list(first.values())


def _steps(found: Compared) -> dict[str, float]:
    """How much more time than Full-FT by cause, in ms; causes of little weight as one."""
    more = {cause: one.value for cause, one in found.beyond.items()}
    all_of_it = sum(map(abs, more.values()))
    told = {CAUSES[cause].label: ms for cause, ms in more.items() if abs(ms) >= LEAST * all_of_it}
    rest = sum(more.values()) - sum(told.values())
    return told | ({REST: rest} if abs(rest) >= LEAST / 10 * all_of_it else {})


def _rows(steps: Sequence[dict[str, float]]) -> list[str]:
    """Names of the rows: Full-FT above, the causes in one order, the method below."""
    named = {name for found in steps for name in found}
    order = [*(cause.label for cause in CAUSES.values()), REST]
    return ["Full-FT", *(name for name in order if name in named), "the method"] if named else []


def _draw(
    axes: "Axes", panel: Panel, case: Case, pass_: str, found: Compared | None, steps: dict[str, float] | None,
    rows: Sequence[str],
) -> None:  # fmt: skip
    ratio = ratio_word(panel.ratio(case, pass_))
    name = "\n".join(textwrap.wrap(panel.labels[case], 34))
    axes.set_title(f"{name}\n{pass_}: {ratio} times Full-FT's")
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    if found is None or steps is None:
        word = f"{found.word}:\nno difference to explain" if found else "no causes on record"
        axes.text(0.5, 0.5, word, ha="center", va="center", fontsize=8.5, color=SOFT, transform=axes.transAxes)
        axes.set_xticks([])
        return
    by = panel.unit[1]
    start, goal = by * found.full.total_ms, by * found.split.total_ms
    at, ends = start, [start]
    for y, row in enumerate(rows[1:-1], 1):
        more = by * steps.get(row, 0.0)
        axes.plot([at, at], [y - 1, y], color=SOFT, lw=0.7, zorder=1)
        if more:
            colour, hatch = MORE if more > 0 else LESS
            edge = INK if more > 0 else FASTER
            axes.barh(y, more, 0.66, at, facecolor=colour, hatch=hatch, edgecolor=edge, linewidth=0.8)
            end = max(at, at + more)
            axes.annotate(short(more, "+"), (end, y), (4, 0), textcoords="offset points", va="center", fontsize=8)
        at += more
        ends.append(at)
    axes.plot([at, at], [len(rows) - 2, len(rows) - 1], color=SOFT, lw=0.7, zorder=1)
    for y, x in ((0, start), (len(rows) - 1, goal)):
        axes.plot(x, y, marker="D", ms=5, color=INK, ls="")
        axes.annotate(short(x), (x, y), (7, 0), textcoords="offset points", va="center", fontsize=8, weight="bold")
    reach = max(ends) - min(ends)
    axes.set_xlim(min(ends) - 0.06 * reach, max(ends) + 0.3 * reach)
