"""Forward-backward over Full-FT's for each layer, at the largest batch x length."""

from pathlib import Path

from plots.data.labels import shape_word
from plots.data.panels import MAX_TYPES, Panel
from plots.figures.canvas import INK, MAX_LAYERS, colours, draw_ratio, finish, legend, new_canvas, offset
from plots.render.blocks import Figure
from plots.text.captions import caption, panel_place


def layers_figure(panel: Panel, path: Path) -> Figure | None:
    """Forward-backward over Full-FT's for each layer, at the largest batch x length."""
    shape = panel.shapes[-1]
    types = panel.compared_types[:MAX_TYPES]
    layers = [s for s in panel.subjects if any(panel.find(s, shape, t) for t in types)][:MAX_LAYERS]
    if panel.level != "linear" or len(panel.types) > MAX_TYPES or not types or not layers:
        return None
    canvas = new_canvas(9.5, 2.2 + 0.3 * len(layers))
    axes = canvas.subplots()
    for i, layer in enumerate(layers):
        for j, type_ in enumerate(types):
            case = panel.find(layer, shape, type_)
            if case:
                y = i + offset(j, len(types), 0.6)
                draw_ratio(axes, panel.ratio(case), y, colours(panel)[type_][0], False)
    axes.axvline(1, color=INK, lw=1.1, zorder=1)
    axes.set_yticks(range(len(layers)), layers)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    axes.set_xlabel("forward-backward time / Full-FT's")
    legend(canvas, panel, types)
    title = f"Time over Full-FT's at {shape_word(shape)}: {panel_place(panel)}"
    return finish(canvas, path, title, f"{caption(panel)} Drawn: {shape_word(shape)}; 95 % intervals.")
