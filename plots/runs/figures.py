"""Trainings as figures: the loss over wall clock, and accuracy over the time it took."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from plots.data.training_runs import Run
from plots.figures.canvas import INK, SOFT, finish, new_canvas
from plots.figures.styles import style_of
from plots.render.blocks import Figure
from plots.runs.compared import groups_by, is_untrained, pareto, smoothed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOSS, ACCURACY = "training-loss", "training-accuracy"
MOST_POINTS = 1500  # of a line; a longer one is thinned evenly
MARKS = "osD^vPX"
MAX_GROUPS = 4  # side by side or below; the table has the rest


@dataclass(frozen=True)
class Look:
    colour: str
    mark: str


def looks(runs: Sequence[Run]) -> dict[Path, Look]:
    """A colour of its method's and a mark for each run."""
    found: dict[Path, Look] = {}
    used: dict[str, int] = {}
    for run in runs:
        method = run.method or "none"
        i = used[method] = used.get(method, -1) + 1
        hues = (INK, SOFT) if is_untrained(run) else [style_of(method, impl).colour for impl in ("triton", "eager")]
        found[run.path] = Look(hues[i % len(hues)], MARKS[i % len(MARKS)])
    return found


def loss_figure(runs: Sequence[Run], path: Path) -> Figure | None:
    """A line for each training, one set of axes a model; None where no training has two steps."""
    trained = [run for run in runs if len(run.clock) > 1]
    words = (
        "Thick: the loss smoothed by a moving mean over a tenth of the steps; faint: each step. The clock runs from "
        "the start of training; loading is not in it, checkpoints are. A loss of the training data is no accuracy."
    )
    return _figure(trained, path, "Loss over wall clock", words, "Loss", lambda r: r.clock[-1], _draw_losses)


def accuracy_figure(runs: Sequence[Run], path: Path) -> Figure | None:
    """A point for each run that was evaluated, one set of axes for what was evaluated alike; None without any."""
    known = [run for run in runs if "average" in run.scores and (run.seconds or is_untrained(run))]
    if not any(run.seconds for run in known):
        return None
    words = (
        "Whiskers: one standard error to each side, for independent items. Line: the Pareto front: no run was at least "
        "as accurate in less time. Filled: on it. The model without training stands at 0."
    )
    return _figure(
        known, path, "Accuracy over training time", words, "MMLU accuracy (%)", lambda r: r.seconds or 0.0, _draw_points
    )


def _figure(
    runs: Sequence[Run], path: Path, title: str, words: str, y_label: str, time_of: Callable[[Run], float],
    draw: "Callable[[Axes, Sequence[Run], dict[Path, Look], float], None]",
) -> Figure | None:  # fmt: skip
    from matplotlib.lines import Line2D

    if not runs:
        return None
    groups = groups_by(runs, alike=draw is _draw_points)[:MAX_GROUPS]
    shown, paint = [run for _, group in groups for run in group], looks(runs)
    canvas = new_canvas(9.5, 3.4 * len(groups) + 0.6 + 0.2 * (len(shown) // 4))
    for axes, (name, group) in zip(canvas.subplots(len(groups), 1, squeeze=False)[:, 0], groups, strict=True):
        unit, seconds = _unit(max(map(time_of, group)))
        draw(axes, group, paint, seconds)
        axes.set_title(name, loc="left")
        axes.set_xlabel(f"{unit} of training", color=SOFT)
        axes.set_ylabel(y_label, color=SOFT)
    handles = [Line2D([], [], color=paint[r.path].colour, marker=paint[r.path].mark, ms=5, label=r.name) for r in shown]
    return finish(canvas, path, title, words, handles)


def _unit(most: float) -> tuple[str, float]:
    return ("Hours", 3600.0) if most >= 5400 else ("Minutes", 60.0) if most >= 120 else ("Seconds", 1.0)


def _draw_losses(axes: "Axes", runs: Sequence[Run], paint: dict[Path, Look], unit: float) -> None:
    tops = []
    for run in runs:
        look, every = paint[run.path], max(1, len(run.clock) // MOST_POINTS)
        times, losses, smooth = np.array(run.clock) / unit, np.array(run.losses), smoothed(run.losses)
        axes.plot(times[::every], losses[::every], color=look.colour, lw=0.8, alpha=0.25)
        axes.plot(
            times[::every], smooth[::every], color=look.colour, lw=1.8, marker=look.mark, ms=5,
            markevery=max(1, len(times[::every]) // 8),
        )  # fmt: skip
        tops.append(float(np.percentile(losses, 99)))
    low, high = axes.get_ylim()
    axes.set_ylim(max(low, 0.0), min(high, 1.05 * max(tops)))  # a lone peak of one run does not flatten the others
    axes.set_xlim(left=0)


def _draw_points(axes: "Axes", runs: Sequence[Run], paint: dict[Path, Look], unit: float) -> None:
    front = pareto(runs)
    right = 1.06 * max((run.seconds or 0.0) for run in runs) / unit
    xs, ys = [(run.seconds or 0.0) / unit for run in front], [run.scores["average"] for run in front]
    axes.step([*xs, right], [*ys, ys[-1]], where="post", color=SOFT, lw=1, ls="--", zorder=1)
    for run in runs:
        look = paint[run.path]
        axes.errorbar(
            (run.seconds or 0.0) / unit, run.scores["average"], yerr=run.errors.get("average", 0.0), fmt=look.mark,
            color=look.colour, mfc=look.colour if run in front else "white", ms=7, ecolor=INK, elinewidth=1, capsize=3,
        )  # fmt: skip
    axes.set_xlim(-0.03 * right, right)
