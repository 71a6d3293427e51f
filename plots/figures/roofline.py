"""The roofline plot: what each training type achieves over how much it computes a byte, below the roofs."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.case.clocks import in_order
from plots.data.hardware import dtype_of, measured_peaks, sheet_peaks, tflops, work_cell
from plots.data.panels import Panel
from plots.figures.canvas import INK, SOFT, finish, new_canvas
from plots.figures.styles import key, styles_in
from plots.render.blocks import Figure
from plots.text.captions import note, panel_place
from plots.text.numbers import rate_word

if TYPE_CHECKING:
    from matplotlib.axis import Axis

PASSES = ("forward", "backward")


@dataclass(frozen=True)
class Roof:
    """FLOP/s and bytes a second, both in units of 1e12, and how it is drawn."""

    name: str
    flops: float
    bytes: float | None
    colour: str
    dash: str

    @property
    def label(self) -> str:
        copy = f", {rate_word(self.bytes, 'B/s')}" if self.bytes else ""
        return f"{self.name}: {rate_word(self.flops, 'FLOP/s')}{copy}"

    def over(self, intensity: np.ndarray) -> np.ndarray:
        """The highest rate at these FLOPs a byte."""
        return np.minimum(self.flops, intensity * self.bytes) if self.bytes else np.full_like(intensity, self.flops)


def roofline_figure(panel: Panel, path: Path) -> Figure | None:
    """FLOPs over bytes of a pass, both by closed form, against the achieved rate; needs one roof at least."""
    from matplotlib.lines import Line2D

    panel = panel.by_wall
    roofs, results = _roofs(panel), panel.results
    points: dict[tuple[str, str], list[tuple[float, float]]] = {}
    clocks: set[str] = set()
    for case in panel.cases:
        for pass_ in PASSES:
            work, cell = results.get_work(case, pass_), work_cell(panel, case, pass_)
            rate = tflops(cell, work)
            if rate and work.flops and work.bytes:
                points.setdefault((pass_, panel.labels[case]), []).append((work.flops / work.bytes, rate.value))
                clocks.add(cell.clock)
    if not roofs or not points:
        return None
    unit, by = ("GFLOP/s", 1e3) if results.folder.is_cpu else ("TFLOP/s", 1.0)
    x, y = np.transpose([p for found in points.values() for p in found])
    ridges = [roof.flops / roof.bytes for roof in roofs if roof.bytes]
    xs = np.geomspace(min([x.min() / 2, *(r / 4 for r in ridges)]), max([x.max() * 2, *(r * 4 for r in ridges)]), 200)
    ceilings = [roof.over(xs) for roof in roofs]
    low, high = min(y.min(), np.min(ceilings)), max(y.max(), np.max(ceilings))
    canvas = new_canvas(10.5, 4.2)
    paint = styles_in(panel)
    drawn = [t for t in panel.types if any(type_ == t for _, type_ in points)]
    for axes, pass_ in zip(canvas.subplots(1, 2, sharey=True), PASSES, strict=True):
        for roof, ceiling in zip(roofs, ceilings, strict=True):
            axes.plot(xs, ceiling * by, color=roof.colour, lw=1.5, ls=roof.dash, zorder=2)
        for type_ in drawn:
            if found := points.get((pass_, type_)):
                axes.plot(*np.transpose([(a, b * by) for a, b in found]), zorder=3, **paint[type_].mark())
        axes.set(xscale="log", yscale="log", xlabel="FLOPs a byte", xlim=(xs[0], xs[-1]))
        axes.set_ylim(low * by / 1.5, high * by * 1.5)
        axes.set_title(pass_)
        for axis in (axes.xaxis, axes.yaxis):
            _plain(axis)
    canvas.axes[0].set_ylabel(unit)
    keys = [key(type_, paint[type_]) for type_ in drawn]
    keys += [Line2D([], [], color=roof.colour, ls=roof.dash, lw=1.5, label=roof.label) for roof in roofs]
    words = (
        "A point a case, all models and sizes; FLOPs and bytes by closed form. What a cache still holds can pass a "
        "roof's slope."
    )
    words = note(panel, words, *in_order([*clocks]))
    return finish(canvas, path, f"Roofline: {panel_place(panel)}", words, keys)


def _plain(axis: "Axis") -> None:
    """Plain numbers at 1, 2 and 5; the house style has no math text."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _roofs(panel: Panel) -> list[Roof]:
    """The data sheet's and the measured one, for the dtype of the panel."""
    folder, case = panel.results.folder, panel.cases[0]
    found: list[Roof] = []
    if sheet := sheet_peaks(folder, case):
        found.append(Roof("data sheet", *sheet, SOFT, "--"))
    measured = measured_peaks(folder)
    if (rate := measured.get(dtype_of(case))) is not None:
        found.append(Roof("measured here", rate, measured.get("copy"), INK, "-"))
    return found
