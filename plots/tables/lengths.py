"""Fixed cost, slope and square term of fits through the times of several lengths."""

from collections.abc import Sequence

from bench.errors import listed
from bench.record.numbers import with_interval
from plots.data.labels import distinct
from plots.data.length_fit import LEAST, Line, Series, fit_lengths
from plots.data.panels import Panel
from plots.data.paper import paper_line
from plots.render.blocks import Table
from plots.text.captions import caption, title

FORM = "time = fixed + slope x tokens + square x batch x length^2, tokens = batch x length"


def lengths_table(panel: Panel) -> Table | None:
    """The fit of each model, batch, training type and pass, with the paper's two-point line beside it where it has
    one."""
    series = fit_lengths(panel)
    fitted = [s for s in series if s.line]
    if not fitted:
        return None
    papers = [paper_line(s.case, panel.clock, s.pass_) for s in fitted]
    beside = any(papers)
    lines = tuple(
        (s.case.subject, str(s.case.batch), s.type_, s.pass_, *_words(s.line), *(_paper_words(paper) if beside else ()))
        for s, paper in zip(fitted, papers, strict=True)
        if s.line
    )
    points = sorted({len(s.lengths) for s in fitted})
    notes = [
        f"{FORM}, least squares of relative errors through "
        f"{' to '.join(dict.fromkeys([str(points[0]), str(points[-1])]))} lengths; intervals are Student's 95 % from "
        "the residuals. Fixed is what does not shrink with the input (launches, host). Square is attention, whose cost "
        "grows with batch x length^2; it cannot be below zero, and is 0 without an interval where the fit would have "
        f"it there. With {LEAST} lengths it could not be told from noise and is left out, so a large residual then "
        "means that fixed is not to be trusted."
    ]
    if beside:
        notes.append(
            "The paper's line goes through its two lengths, 512 and 1024, on an A100: two points, no interval."
        )
    return Table(
        title("Fixed cost and slope", panel),
        " ".join([*notes, *_unfitted(series), caption(panel)]),
        ("Model", "Batch", "Training type", "Pass"),
        (
            ("Fixed (ms)", ()), ("Slope (us a token)", ()), ("Square (ns)", ()), ("Largest residual (%)", ()),
            *([("The paper's line", ("fixed (ms)", "slope (us a token)"))] if beside else []),
        ),
        lines,
    )  # fmt: skip


def _words(line: Line) -> tuple[str, ...]:
    square = line.square_ms
    told = "not fitted" if square is None else "0" if square.low is None else with_interval(square.times(1e6))
    return with_interval(line.fixed_ms), with_interval(line.slope_ms.times(1e3)), told, f"{100 * line.worst:.1f}"


def _paper_words(paper: tuple[float, float] | None) -> tuple[str, str]:
    return ("not in it",) * 2 if paper is None else (f"{paper[0]:.1f}", f"{1e3 * paper[1]:.1f}")


def _unfitted(series: Sequence[Series]) -> list[str]:
    names = distinct(f"{s.case.subject} {s.type_} at batch {s.case.batch}" for s in series if s.line is None)
    few = f"{listed(names[:6])}{f' and {len(names) - 6} more' if names[6:] else ''}"
    return [f"Not fitted, with times at fewer than {LEAST} lengths: {few}."] if names else []


def no_fit(panels: Sequence[Panel]) -> str:
    """Why there is no such table at all."""
    most = max((len(s.lengths) for panel in panels for s in fit_lengths(panel)), default=0)
    have = f"here are times at {most} at most" if most else "here are none"
    return (
        f"Not fitted: it takes forward and backward times of blocks or whole models at {LEAST} lengths, as sweep "
        f"lengths has them; {have}."
    )
