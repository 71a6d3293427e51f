"""Tables of what is predicted, each said to be so in its title and its heads."""

from bench.case import Case
from bench.record.stats import Estimate
from plots.data.labels import shape_word
from plots.data.predictions import LEVEL, Predictions
from plots.render.blocks import Table

CLOCKS = {"graph": "the GPU's time alone", "eager": "with the host", "cpu-time": "the processor's time"}
WINNER = "A ratio whose interval holds 1 claims no winner."


def span(found: Estimate | None) -> str:
    """'61.9 (55 .. 69)'; empty where there is none."""
    if found is None:
        return ""
    ends = "" if found.low is None or found.high is None else f" ({_digits(found.low)} .. {_digits(found.high)})"
    return _digits(found.value) + ends


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def board_tables(found: Predictions) -> list[Table]:
    """One for each board and clock: every pass, and the ratio."""
    return [_board_table(found, board, clock) for board in found.boards for clock in found.clocks]


def _board_table(found: Predictions, board: str, clock: str) -> Table:
    lines = []
    for case in found.cases:
        times = [span(found.time(case, board, p, clock)) for p in found.passes]
        times = times if any(times) else [found.word(case, board)] * len(times)
        lines.append((*_lead(found, case), *times, _ratio(found, case, board, clock)))
    heads = (("Predicted time, ms", tuple(found.passes)), (f"Predicted ratio to Full-FT, {found.headline}", ()))
    caption = f"Predicted, not measured. {LEVEL} % intervals. {WINNER}"
    title = f"Predicted for {found.boards[board]}, clock {clock}: {CLOCKS.get(clock, clock)}"
    return Table(title, caption, ("Model", "Batch x length", "Training type"), heads, tuple(lines))


def comparison_table(found: Predictions, clock: str) -> Table:
    """All boards side by side: time and ratio of the headline's pass."""
    lines = []
    for case in found.cases:
        cells: list[str] = []
        for board in found.boards:
            time = span(found.time(case, board, found.headline, clock)) or found.word(case, board)
            cells += [time, _ratio(found, case, board, clock)]
        lines.append((*_lead(found, case), *cells))
    heads = tuple((f"{name}, predicted", ("ms", "ratio")) for name in found.boards.values())
    caption = f"Predicted, not measured: {found.headline}. {LEVEL} % intervals. {WINNER} {found.provenance}"
    title = f"Predicted by board, clock {clock}: {CLOCKS.get(clock, clock)}"
    return Table(title, caption, ("Model", "Batch x length", "Training type"), heads, tuple(lines))


def _lead(found: Predictions, case: Case) -> tuple[str, str, str]:
    return case.subject, shape_word(case.size), found.labels[case]


def _ratio(found: Predictions, case: Case, board: str, clock: str) -> str:
    if case in found.full and found.time(case, board, found.headline, clock):
        return "1"
    return span(found.ratio(case, board, clock))
