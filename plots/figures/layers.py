"""Forward-backward over Full-FT's for each layer, at the largest batch x length."""

from pathlib import Path

from plots.data.labels import shape_word
from plots.data.panels import MAX_TYPES, Panel
from plots.figures.canvas import MAX_LAYERS, finish, new_canvas
from plots.figures.styles import NOISY_RATIO, draw_ratio, key, ratio_axes, styles_in
from plots.render.blocks import Figure
from plots.text.captions import note, panel_place


def layers_figure(panel: Panel, path: Path) -> Figure | None:
    """Forward-backward over Full-FT's for each layer, at the largest batch x length."""
    shape = panel.shapes[-1]
    types = panel.compared_types[:MAX_TYPES]
    layers = [s for s in panel.subjects if any(panel.find(s, shape, t) for t in types)][:MAX_LAYERS]
    if panel.level != "linear" or len(panel.types) > MAX_TYPES or not types or not layers:
        return None
    canvas = new_canvas(9.5, 0.8 + len(layers) * (0.16 + 0.08 * len(types)))
    axes, paint = canvas.subplots(), styles_in(panel)
    for i, layer in enumerate(layers):
        for j, type_ in enumerate(types):
            if case := panel.find(layer, shape, type_):
                y = i + 0.7 * ((j + 0.5) / len(types) - 0.5)
                draw_ratio(axes, panel.ratio(case), y, paint[type_], False)
    axes.set_yticks(range(len(layers)), layers)
    axes.set_ylim(len(layers) - 0.4, -0.6)
    ratio_axes([axes], what="forward-backward time")
    hollow = f" {NOISY_RATIO}" if any(ratio.noisy for ratio in panel.ratios.values()) else ""
    title = f"Time over Full-FT's at {shape_word(shape)}: {panel_place(panel)}"
    keys = [key(type_, paint[type_]) for type_ in types]
    return finish(canvas, path, title, note(panel, f"95 % intervals; grey band: 1 ± 2 %.{hollow}"), keys)
