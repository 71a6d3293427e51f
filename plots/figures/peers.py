"""Time over Full-FT's of every implementation at every layer or group of layers, as a table of shaded cells."""

from pathlib import Path

import numpy as np

from plots.data.labels import shape_word
from plots.data.panels import Panel
from plots.figures.canvas import INK, MAX_LAYERS, finish, new_canvas
from plots.figures.heat import shade_cells
from plots.render.blocks import Figure
from plots.text.captions import note, panel_place

PASSES = ("forward-backward", "forward")
PEFT = ("lora", "peft")
ACROSS = 6  # layers whose names stand across; those of more are turned


def peers_figure(panel: Panel, path: Path) -> Figure | None:
    """Cells of ratios to Full-FT, a row a training type, the fastest first, and a column a layer; axes a pass."""
    shape = panel.shapes[-1]
    types = [t for t in panel.types if any(panel.labels[c] == t and not panel.is_full(c) for c in panel.cases)]
    layers = [s for s in panel.subjects if any(panel.find(s, shape, t) for t in types)][:MAX_LAYERS]
    if not panel.compares_implementations or not types or not layers or not panel.baselines:
        return None
    types.sort(key=lambda type_: _mean(panel, layers, shape, type_))
    few, longest = len(layers) <= ACROSS, max(len(word) for layer in layers for word in layer.split())
    cell = 0.085 * longest + 0.1 if few else 0.55
    canvas = new_canvas(0.1 * max(map(len, types)) + 2 * cell * len(layers), 1.0 + 0.25 * len(types) + (not few))
    grid = canvas.subplots(1, 2, sharey=True)
    peft = {panel.labels[c] for c in panel.cases if (c.method, c.impl) == PEFT and not c.compiles}
    for axes, pass_ in zip(grid, PASSES, strict=True):
        found = [[panel.find(layer, shape, t) for layer in layers] for t in types]
        shade_cells(axes, [[panel.ratio(c, pass_) if c else None for c in line] for line in found])
        for i, type_ in enumerate(types):
            if type_ in peft:
                axes.axhline(i - 0.5, color=INK, lw=1.4)
                axes.axhline(i + 0.5, color=INK, lw=1.4)
        axes.set_title(pass_)
        axes.set_xticks(range(len(layers)), [layer.replace(" ", "\n") for layer in layers], rotation=0 if few else 90)
        axes.set_yticks(range(len(types)), types)
        axes.spines[:].set_visible(False)
    for tick, type_ in zip(grid[0].get_yticklabels(), types, strict=True):
        tick.set_fontweight("bold" if type_ in peft else "normal")
    reference = " Between lines, in bold: PEFT, what people have." if peft else ""
    words = f"At {shape_word(shape)}; green: faster than Full-FT, purple: slower; hatched: not decided.{reference}"
    what = "Methods and implementations, time over Full-FT's"
    return finish(canvas, path, f"{what}: {panel_place(panel)}", note(panel, words))


def _mean(panel: Panel, layers: list[str], shape: tuple[int, int], type_: str) -> float:
    """Of forward-backward over all layers, else infinite: a training type that has forward alone stands last."""
    found = [panel.ratio(panel.find(layer, shape, type_)).value for layer in layers]
    known = [np.log(one.value) for one in found if one]
    return float(np.mean(known)) if known else float("inf")
