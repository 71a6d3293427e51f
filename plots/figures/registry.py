"""Figures as PNG and SVG. One that the panel's data do not support is None."""

from collections.abc import Callable
from pathlib import Path

from plots.data.panels import Panel
from plots.figures.breakdown import breakdown_figure
from plots.figures.causes import causes_figure
from plots.figures.grid import grid_figure
from plots.figures.layers import layers_figure
from plots.figures.lengths import lengths_figure
from plots.figures.memory import memory_figure
from plots.figures.peers import peers_figure
from plots.figures.ratio import ratio_figure
from plots.figures.roofline import roofline_figure
from plots.figures.steps import steps_figure
from plots.figures.throughput import throughput_figure
from plots.figures.waterfall import waterfall_figure
from plots.render.blocks import Figure

# Every figure by the stem of its files, in the order in which the report shows them.
FIGURES: dict[str, Callable[[Panel, Path], Figure | None]] = {
    "memory": memory_figure,
    "split": breakdown_figure,
    "causes": causes_figure,
    "waterfall": waterfall_figure,
    "steps": steps_figure,
    "ratio": ratio_figure,
    "layers": layers_figure,
    "peers": peers_figure,
    "throughput": throughput_figure,
    "roofline": roofline_figure,
    "lengths": lengths_figure,
    "grid": grid_figure,
}
