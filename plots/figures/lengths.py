"""Figures over many cases: ratios by layer, straight lines over tokens, heat maps over batch and length."""

from pathlib import Path

import numpy as np

from plots.data.load import Folder
from plots.data.panels import MAX_TYPES, Panel
from plots.data.results import Book
from plots.figures.canvas import FAILED, HUES, INK, MAX_MODELS, OTHER, colours, finish, legend, plt_canvas, point
from plots.render.blocks import Figure
from plots.tables.lengths import fits
from plots.tables.peers import is_peers
from plots.text.captions import caption, place, shape_word

MAX_LAYERS = 40
# Marker and dash of a training type: two lines that lie on each other stay two.
STROKES = (("o", "-"), ("s", "-"), ("^", (0, (4, 3))), ("D", (0, (1, 2))), ("v", (0, (6, 2, 1, 2))))
LIMIT = 1.0  # the colours of a heat map end at ratios of 2 and 1/2


def layers_figure(folder: Folder, book: Book, panel: Panel, where: Path) -> Figure | None:
    """Forward-backward over Full-FT's for each layer, at the largest batch x length."""
    shape = panel.shapes[-1]
    full = {panel.labels[c] for c in panel.cases if book.baseline(c) == c}
    types = [t for t in panel.types if t not in full][:MAX_TYPES]
    layers = [s for s in panel.subjects if any(panel.find(s, shape, t) for t in types)][:MAX_LAYERS]
    if not types or not layers:
        return None
    canvas = plt_canvas(9.5, 2.2 + 0.3 * len(layers))
    axes = canvas.subplots()
    for i, layer in enumerate(layers):
        for j, type_ in enumerate(types):
            case = panel.find(layer, shape, type_)
            if case:
                y = i + (j - (len(types) - 1) / 2) * 0.6 / len(types)
                point(axes, book.ratio(case, "forward-backward", panel.clock), y, colours(panel)[type_][0], False)
    axes.axvline(1, color=INK, lw=1.1, zorder=1)
    axes.set_yticks(range(len(layers)), layers)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_xlabel("forward-backward time / Full-FT's")
    legend(canvas, panel, types)
    words = f"{caption(folder, book, panel.cases, panel.clock)} Drawn: {shape_word(shape)}; 95 % intervals."
    return finish(
        canvas, where, "layers", f"Time over Full-FT's at {shape_word(shape)}: {place(folder, panel.level)}", words
    )


def peers_figure(folder: Folder, book: Book, panel: Panel, where: Path) -> Figure | None:
    """Time over Full-FT's for each training type, axes for each layer or group: forward hollow, the whole filled."""
    from matplotlib.lines import Line2D

    shape = panel.shapes[-1]
    types = [t for t in panel.types if any(panel.labels[c] == t and book.baseline(c) != c for c in panel.cases)]
    layers = [s for s in panel.subjects if any(panel.find(s, shape, t) for t in types)][:MAX_LAYERS]
    if not is_peers(panel) or not types or not layers or not any(book.baseline(c) for c in panel.cases):
        return None
    columns = min(4, len(layers))
    lines = -(-len(layers) // columns)
    canvas = plt_canvas(3.0 + 2.6 * columns, 1.9 + lines * (0.5 + 0.19 * len(types)))
    grid = canvas.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    hue = {panel.labels[c]: HUES.get(c.method, OTHER)[0] for c in panel.cases}
    for axes, layer in zip(grid.flat, layers, strict=False):
        for y, type_ in enumerate(types):
            case = panel.find(layer, shape, type_)
            if case is None:
                continue
            forward, both = (book.ratio(case, pass_, panel.clock) for pass_ in ("forward", "forward-backward"))
            if forward.value:
                point(axes, forward, y - 0.17, hue[type_], False, "white")
            if both.value or not forward.value:
                point(axes, both, y + 0.17, hue[type_], False)
        axes.axvline(1, color=INK, lw=1.1, zorder=1)
        axes.set_title(layer, loc="left", fontsize=8.5)
        axes.tick_params(axis="y", length=0)
    for axes in grid.flat[len(layers) :]:
        axes.set_visible(False)
    first = grid[0][0]
    first.set_yticks(range(len(types)), types)
    first.set_ylim(len(types) - 0.4, -0.6)
    first.set_xscale("log", base=2)
    low, high = first.get_xlim()
    first.set_xlim(min(low, 0.5), max(high, 2.0))
    first.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    for axes in grid.flat[max(0, len(layers) - columns) : len(layers)]:
        axes.tick_params(axis="x", labelbottom=True)
        axes.set_xlabel("time / Full-FT's")
    marks = [
        Line2D([], [], marker="o", mfc=fill, mec=INK, ls="", label=name)
        for name, fill in (("forward", "white"), ("forward-backward", INK))
    ]
    legend(canvas, panel, [], marks)
    words = (
        f"{caption(folder, book, panel.cases, panel.clock)} Drawn: {shape_word(shape)}; 95 % intervals; a pass that is "
        "missing has no time. Left of the line is faster than Full-FT."
    )
    what = "Methods and implementations, time over Full-FT's"
    return finish(canvas, where, "peers", f"{what}: {place(folder, panel.level)}", words)


def lengths_figure(folder: Folder, book: Book, panel: Panel, where: Path) -> Figure | None:
    """Measured times over tokens, with the line fixed + slope x tokens through them."""
    lines = fits(book, panel)
    if not lines:
        return None
    batch = max({key[1] for key in lines}, key=lambda b: sum(key[1] == b for key in lines))
    models = [s for s in panel.subjects if any(key[:2] == (s, batch) for key in lines)][:MAX_MODELS]
    types = panel.types[:MAX_TYPES]
    canvas = plt_canvas(max(7.0, min(13.0, 1 + 3.8 * len(models))), 6.6)
    grid = canvas.subplots(2, len(models), squeeze=False)
    for row, pass_ in enumerate(("forward", "backward")):
        for column, model in enumerate(models):
            axes = grid[row][column]
            for type_ in types:
                line = lines.get((model, batch, type_, pass_))
                cases = [c for s in panel.shapes if s[0] == batch and (c := panel.find(model, s, type_))]
                found = [(c.tokens, t) for c in cases if (t := book.get(c, pass_, panel.clock).time)]
                colour, (mark, dash) = colours(panel)[type_][0], STROKES[types.index(type_) % len(STROKES)]
                if found:
                    x, y = [f[0] for f in found], [f[1].value for f in found]
                    spread = [[max(t.value - (t.low or t.value), 0) for _, t in found],
                              [max((t.high or t.value) - t.value, 0) for _, t in found]]  # fmt: skip
                    axes.errorbar(
                        x,
                        y,
                        yerr=spread,
                        fmt=mark,
                        ms=5,
                        mfc="none",
                        color=colour,
                        ecolor=INK,
                        elinewidth=0.8,
                        capsize=2,
                    )
                if line:
                    ends = np.array([0.0, max(x)])
                    axes.plot(ends, line.fixed_ms.value + line.slope_ms.value * ends, color=colour, lw=1.4, ls=dash)
            axes.set_xlim(left=0)
            axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
            axes.set_title(model if row == 0 else "", loc="left")
            if row == 1:
                axes.set_xlabel("tokens (batch x length)")
            if column == 0:
                axes.set_ylabel(f"{pass_} (ms)")
    legend(canvas, panel, types)
    words = (
        f"time = fixed + slope x tokens, least squares of relative errors; batch {batch}; the line meets the left "
        f"edge at the fixed cost. {caption(folder, book, panel.cases, panel.clock)}"
    )
    return finish(canvas, where, "lengths", f"Time over tokens: {place(folder, panel.level)}", words)


def grid_figure(folder: Folder, book: Book, panel: Panel, where: Path) -> Figure | None:
    """Heat maps of forward-backward over Full-FT's, batch by length; needs two of each."""
    batches, lengths = sorted({s[0] for s in panel.shapes}), sorted({s[1] for s in panel.shapes})
    full = {panel.labels[c] for c in panel.cases if book.baseline(c) == c}
    types = [t for t in panel.types if t not in full][:4]
    models = panel.subjects[:MAX_MODELS]
    if len(batches) < 2 or len(lengths) < 2 or not types or not full:
        return None
    wide, high = max(0.62 * len(lengths) + 0.8, 2.6), 0.42 * len(batches) + 0.75
    canvas = plt_canvas(max(7.0, wide * len(models)), 1.7 + high * len(types))
    grid = canvas.subplots(len(types), len(models), squeeze=False)
    for row, type_ in enumerate(types):
        for column, model in enumerate(models):
            axes = grid[row][column]
            cases = [[panel.find(model, (b, s), type_) for s in lengths] for b in batches]
            ratios = [[book.ratio(c, "forward-backward", panel.clock) if c else None for c in line] for line in cases]
            shade = np.array([[np.log2(r.value.value) if r and r.value else np.nan for r in line] for line in ratios])
            axes.imshow(shade, cmap="PuOr_r", vmin=-LIMIT, vmax=LIMIT, aspect="auto", origin="lower")
            for i, line in enumerate(ratios):
                for j, r in enumerate(line):
                    words = "not\nmeasured" if r is None else f"{r.value.value:.2f}" if r.value else r.word
                    ink = FAILED if r is None or not r.value else "white" if abs(shade[i, j]) > 0.72 * LIMIT else INK
                    size = 8 if len(words) < 7 else 5.5
                    axes.text(j, i, words, ha="center", va="center", fontsize=size, color=ink)
            axes.grid(False)
            axes.set_xticks(range(len(lengths)), [str(s) for s in lengths])
            axes.set_yticks(range(len(batches)), [str(b) for b in batches])
            axes.set_title(f"{model}: {type_}", loc="left", fontsize=9)
            axes.set_ylabel("batch" if column == 0 else "")
            axes.set_xlabel("length" if row == len(types) - 1 else "")
    words = "Forward-backward time over Full-FT's at equal axes: above 1, orange, is slower than Full-FT. " + caption(
        folder, book, panel.cases, panel.clock
    )
    return finish(canvas, where, "grid", f"Forward-backward time over Full-FT's: {place(folder, panel.level)}", words)
