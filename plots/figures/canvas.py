"""What all figures share: canvas, colours, legend, the point of a ratio, title and caption."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.methods.registry import methods
from bench.record.stats import Estimate
from plots.data.panels import Panel
from plots.data.results import Ratio
from plots.render.blocks import Figure
from plots.text.numbers import ratio_word

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

MAX_WIDE = 3  # batch x length that stand side by side
MAX_MODELS = 6  # side by side in one figure; the tables hold the rest
MAX_LAYERS = 40
INK, SOFT, FAILED = "#1c2024", "#66707a", "#8a3b00"
# Of methods that are not known here; methods that are bring their own. Okabe and Ito's palette throughout, told apart
# by every kind of colour vision.
OTHER = ("#009e73", "#cc79a7", "#7a6fac", "#b8a800")
HATCHES = ("", "//", "..", "xx")


def new_canvas(width: float, height: float) -> "Canvas":
    """An empty canvas in inches, in the house style. matplotlib is imported here, by those who draw."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import rcParams
    from matplotlib.figure import Figure as Canvas

    rcParams.update({
        "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": 9, "axes.titlesize": 10,
        "axes.titleweight": "bold", "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": SOFT,
        "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.grid": True, "grid.color": "#e5e8ea",
        "grid.linewidth": 0.7, "axes.axisbelow": True, "svg.hashsalt": "lorabench", "hatch.linewidth": 0.5,
        "text.parse_math": False,
    })  # fmt: skip
    return Canvas(figsize=(width, height))


def finish(canvas: "Canvas", path: Path, title: str, words: str) -> Figure:
    """Title above, caption below, both files on disk. Nothing in them depends on the day they were drawn."""
    width, height = canvas.get_size_inches()
    lines = textwrap.wrap(words, int(width * 18))
    low = (0.118 * len(lines) + 0.14) / height
    head = canvas.suptitle(
        title,
        x=0.01,
        y=1 - 0.08 / height,
        ha="left",
        va="top",
        fontsize=min(12, 114 * width / len(title)),
        fontweight="bold",
        color=INK,
    )
    canvas.text(0.01, 0.06 / height, "\n".join(lines), ha="left", va="bottom", fontsize=7, color=SOFT)
    head.set_in_layout(False)
    legend = 0.0
    for found in canvas.legends:
        found.set_bbox_to_anchor((0.005, 1 - 0.3 / height))
        legend = 0.08 + 0.2 * -(-len(found.get_texts()) // max(found._ncols, 1))  # type: ignore[attr-defined]
    canvas.tight_layout(rect=(0, low, 1, 1 - (0.32 + legend) / height), h_pad=1.2, w_pad=1.2)
    canvas.savefig(path.with_suffix(".png"), dpi=140, metadata={"Software": None})
    canvas.savefig(path.with_suffix(".svg"), metadata={"Date": None})
    return Figure(path.name, title)


def hues_of(method: str) -> tuple[str, ...]:
    """One hue a method, lighter for further impls."""
    return methods()[method].colours if method in methods() else OTHER


def colours(panel: Panel) -> dict[str, tuple[str, str]]:
    """Training type -> (colour, hatch)."""
    found: dict[str, tuple[str, str]] = {}
    used: dict[str, int] = {}
    method = {panel.labels[c]: c.method for c in panel.cases}
    for type_ in panel.types:
        i = used.setdefault(method[type_], 0)
        used[method[type_]] += 1
        hues = hues_of(method[type_])
        found[type_] = hues[i % len(hues)], HATCHES[(i // len(hues)) % len(HATCHES)]
    return found


def legend(canvas: "Canvas", panel: Panel, types: Sequence[str], extra: Sequence[object] = ()) -> None:
    """One legend for all axes, on one line below the title."""
    from matplotlib.patches import Patch

    paint = colours(panel)
    patches: list[object] = [Patch(facecolor=paint[t][0], hatch=paint[t][1], edgecolor="white", label=t) for t in types]
    widest = max((len(t) for t in types), default=0)
    columns = max(1, int(canvas.get_size_inches()[0] / max(0.075 * widest + 0.45, 1.7)))
    canvas.legend(
        handles=[*patches, *extra], loc="upper left", ncols=min(columns, len(types) + len(extra)), frameon=False,
        fontsize=9, handlelength=1.2, columnspacing=1.4,
    )  # fmt: skip


def whisker(found: Estimate) -> tuple[float, float]:
    """How far the interval reaches below and above the value; 0 where there is none."""
    low, high = (found.value if end is None else end for end in (found.low, found.high))
    return max(found.value - low, 0.0), max(high - found.value, 0.0)


def mark_missing(axes: "Axes", x: float, word: str) -> None:
    """The word that stands in place of a bar."""
    axes.text(x, 0, f" {word}", rotation=90, ha="center", va="bottom", fontsize=7.5, color=FAILED)


def mark_bar(axes: "Axes", x: float, top: float, word: str) -> None:
    """The number above a bar."""
    style: dict[str, Any] = {"rotation": 90, "ha": "center", "va": "bottom", "fontsize": 7.5, "color": INK}
    axes.annotate(word, (x, top), (0, 3), textcoords="offset points", **style)


def slots(axes: "Axes", names: Sequence[str]) -> None:
    """Names of groups of bars below the axis."""
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.tick_params(axis="x", length=0)
    axes.grid(False, axis="x")


def offset(i: int, of: int, width: float) -> float:
    """Where bar `i` of so many stands, from the middle of its group of that width."""
    return (i - (of - 1) / 2) * width / of


def draw_ratio(
    axes: "Axes", ratio: Ratio, y: float, colour: str, labelled: bool = True, fill: str | None = None
) -> None:
    """A ratio with its interval at height y, its number at the right edge, or the word that stands in its place."""
    found = ratio.value
    if labelled or found is None:
        axes.text(
            0.99, y, ratio_word(ratio), ha="right", va="center", fontsize=8, transform=axes.get_yaxis_transform(),
            color=FAILED if found is None else INK,
        )  # fmt: skip
    if found is not None:
        low, high = whisker(found)
        axes.errorbar(
            found.value, y, xerr=[[low], [high]], fmt="o", ms=5, color=colour, ecolor=INK, elinewidth=1, capsize=2.5,
            mfc=fill or colour,
        )  # fmt: skip
