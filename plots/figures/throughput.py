"""Tokens a second, peak memory, cost and energy of each training type, as bars: all are amounts that begin at 0."""

from pathlib import Path

from bench.errors import listed
from plots.data.labels import shape_word
from plots.data.panels import MAX_TYPES, Panel
from plots.data.throughput import throughput, trained_pass
from plots.figures.canvas import FAILED, INK, MAX_MODELS, finish, new_canvas
from plots.figures.styles import styles_in, whisker
from plots.render.blocks import Figure
from plots.text.captions import note, panel_place

Bar = tuple[float, tuple[float, float], str]  # value, whisker, and the words at its end


def throughput_figure(panel: Panel, path: Path) -> Figure | None:
    """At the batch x length that most training types have a time at, the largest of such."""
    panel = panel.by_wall
    pass_, models, types = trained_pass(panel), panel.subjects[:MAX_MODELS], panel.types[:MAX_TYPES]
    found = {c: f for c in panel.cases if (f := throughput(panel, c, pass_))}
    if panel.level == "linear" or not found:
        return None
    shape = max(panel.shapes, key=lambda s: (sum(c.size == s for c in found), s[0] * s[1]))
    price, peaks = panel.results.price, panel.results.peaks_mib
    counted = any(f.energy_kj is not None for f in found.values())
    names = ["tokens a second", *(["peak memory (GiB)"] if peaks else []), *(["cost of 1M tokens"] if price else [])]
    names += ["energy of 1M tokens (kJ)"] * counted
    canvas = new_canvas(max(7.0, 1.6 + 2.9 * len(names)), 0.3 + len(models) * (0.5 + 0.27 * len(types)))
    grid = canvas.subplots(len(models), len(names), squeeze=False, sharey="row")
    paint = styles_in(panel)
    for line, model in zip(grid, models, strict=True):
        for axes in line:
            axes.grid(False, axis="y")
        for y, type_ in enumerate(types):
            case = panel.find(model, shape, type_)
            budget, cell = (found.get(case), panel.time(case, pass_)) if case else (None, None)
            if budget is None or case is None:
                word = cell.status if cell else "not measured"
                line[0].text(0, y, f" {word}", va="center", fontsize=7.5, color=FAILED)
                continue
            mib, cost, kj = peaks.get(case), budget.cost, budget.energy_kj
            bars: list[Bar | None] = [
                (budget.tokens_s.value, whisker(budget.tokens_s), f"{budget.tokens_s.value:,.0f}")
            ]
            bars += [(mib / 1024, (0.0, 0.0), f"{mib / 1024:.3g}") if mib else None] if peaks else []
            bars += [(cost.value, whisker(cost), f"{cost.value:.3g}")] if cost else []
            bars += [None if kj is None else (kj, (0.0, 0.0), f"{kj:.3g}")] * counted
            for axes, bar in zip(line, bars, strict=True):
                if bar is None:
                    axes.text(0, y, " not measured", va="center", fontsize=7.5, color=FAILED)
                    continue
                value, (low, high), words = bar
                axes.barh(
                    y, value, 0.74, color=paint[type_].colour,
                    xerr=[[low], [high]] if low or high else None, capsize=2,
                    error_kw={"elinewidth": 0.9, "ecolor": INK},
                )  # fmt: skip
                axes.annotate(
                    words, (value + high, y), (4, 0), textcoords="offset points", va="center", fontsize=7.5, color=INK
                )
        line[0].set_yticks(range(len(types)), types)
        line[0].set_ylim(len(types) - 0.4, -0.6)
        line[0].set_title(model)
    for axes, name in zip(grid[-1], names, strict=True):
        axes.set_xlabel(name)
    for axes in grid.flat:
        axes.set_xlim(0, axes.get_xlim()[1] * 1.18)
        axes.tick_params(axis="y", length=0)
    parts = ["Throughput", *["memory"] * bool(peaks), *["cost"] * bool(price), *["energy"] * counted]
    of = "a whole optimizer step" if pass_ == "step" else "forward and backward"
    words = f"At {shape_word(shape)}; tokens over the time of {of}. "
    left = panel.types[MAX_TYPES:]
    words += f"Left out for want of room: {listed(left)}. " if left else ""
    words += f"Cost at {price:.12g} an hour (--price). " if price else ""
    return finish(canvas, path, f"{listed(parts)}: {panel_place(panel)}", note(panel, words.strip()))
