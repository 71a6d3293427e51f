"""Time over Full-FT's of every implementation, axes for each layer or group of layers."""

from pathlib import Path

from plots.data.labels import shape_word
from plots.data.panels import Panel
from plots.figures.canvas import INK, MAX_LAYERS, draw_ratio, finish, hues_of, legend, new_canvas
from plots.render.blocks import Figure
from plots.text.captions import caption, panel_place


def peers_figure(panel: Panel, path: Path) -> Figure | None:
    """Time over Full-FT's for each training type, axes for each layer or group: forward hollow, the whole filled."""
    from matplotlib.lines import Line2D

    shape = panel.shapes[-1]
    types = [t for t in panel.types if any(panel.labels[c] == t and not panel.is_full(c) for c in panel.cases)]
    layers = [s for s in panel.subjects if any(panel.find(s, shape, t) for t in types)][:MAX_LAYERS]
    if not panel.compares_implementations or not types or not layers or not panel.baselines:
        return None
    columns = min(4, len(layers))
    lines = -(-len(layers) // columns)
    canvas = new_canvas(3.0 + 2.6 * columns, 1.9 + lines * (0.5 + 0.19 * len(types)))
    grid = canvas.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    hue = {panel.labels[c]: hues_of(c.method)[0] for c in panel.cases}
    for axes, layer in zip(grid.flat, layers, strict=False):
        for y, type_ in enumerate(types):
            case = panel.find(layer, shape, type_)
            if case is None:
                continue
            forward, both = (panel.ratio(case, pass_) for pass_ in ("forward", "forward-backward"))
            if forward.value:
                draw_ratio(axes, forward, y - 0.17, hue[type_], False, "white")
            if both.value or not forward.value:
                draw_ratio(axes, both, y + 0.17, hue[type_], False)
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
        f"{caption(panel)} Drawn: {shape_word(shape)}; 95 % intervals; a pass that is "
        "missing has no time. Left of the line is faster than Full-FT."
    )
    what = "Methods and implementations, time over Full-FT's"
    return finish(canvas, path, f"{what}: {panel_place(panel)}", words)
