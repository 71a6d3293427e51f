"""The roofline plot: what each training type achieves over how much it computes a byte, below the roofs."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bench.case.clocks import in_order
from plots.data.hardware import dtype_of, measured_peaks, sheet_peaks, tflops, work_cell
from plots.data.panels import Panel
from plots.figures.canvas import INK, SOFT, finish, hues_of, new_canvas
from plots.render.blocks import Figure
from plots.text.captions import caption, panel_place
from plots.text.numbers import rate_word

if TYPE_CHECKING:
    from matplotlib.axis import Axis

MARKERS = "os^DvPX*<>ph8d"
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
    canvas = new_canvas(10.5, 5.2)
    method = {panel.labels[c]: c.method for c in panel.cases}
    drawn = [t for t in panel.types if any(key[1] == t for key in points)]
    marks = {t: (MARKERS[i % len(MARKERS)], hues_of(method[t])[0]) for i, t in enumerate(drawn)}
    for axes, pass_ in zip(canvas.subplots(1, 2, sharey=True), PASSES, strict=True):
        for roof, ceiling in zip(roofs, ceilings, strict=True):
            axes.plot(xs, ceiling * by, color=roof.colour, lw=1.5, ls=roof.dash, zorder=2)
        for type_, (mark, colour) in marks.items():
            if found := points.get((pass_, type_)):
                axes.scatter(
                    *np.transpose([(a, b * by) for a, b in found]), marker=mark, s=34, facecolor="none",
                    edgecolor=colour, linewidth=1.3, zorder=3,
                )  # fmt: skip
        axes.set(xscale="log", yscale="log", xlabel="FLOPs a byte", xlim=(xs[0], xs[-1]))
        axes.set_ylim(low * by / 1.5, high * by * 1.5)
        axes.set_title(pass_, loc="left")
        for axis in (axes.xaxis, axes.yaxis):
            _plain(axis)
    canvas.axes[0].set_ylabel(unit)
    handles = [
        Line2D([], [], marker=mark, ls="", mfc="none", mec=colour, mew=1.3, label=t)
        for t, (mark, colour) in marks.items()
    ]
    handles += [Line2D([], [], color=roof.colour, ls=roof.dash, lw=1.5, label=roof.label) for roof in roofs]
    canvas.legend(handles=handles, loc="upper left", ncols=min(len(handles), 4), frameon=False, fontsize=8.5)
    words = (
        "A point is a case, all models and sizes; FLOPs and bytes are the method's own, by closed form. A roof is the "
        "lower of a peak rate and of bandwidth x FLOPs a byte; what a cache still holds can pass its slope. "
        f"{caption(panel, *in_order([*clocks]))}"
    )
    return finish(canvas, path, f"Roofline: {panel_place(panel)}", words)


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
