"""Tables of what is predicted, each said to be so in its title and its heads."""

from bench.case import Case
from bench.case.predictions import SAID, SHOWN
from bench.record.numbers import with_span
from bench.record.stats import Estimate
from plots.data.labels import shape_word
from plots.data.predictions import WINNER, Predictions
from plots.render.blocks import Table


def span(found: Estimate | None) -> str:
    """'61.9 (55 .. 69)'; empty where there is none."""
    if found is None or found.low is None or found.high is None:
        return ""
    return with_span(found.value, found.low, found.high)


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
    caption = f"Predicted, not measured. {SHOWN} % intervals. {WINNER}"
    title = f"Predicted for {found.boards[board]}, clock {clock}: {SAID.get(clock, clock)}"
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
    caption = f"Predicted, not measured: {found.headline}. {SHOWN} % intervals. {WINNER} {found.provenance}"
    title = f"Predicted by board, clock {clock}: {SAID.get(clock, clock)}"
    return Table(title, caption, ("Model", "Batch x length", "Training type"), heads, tuple(lines))


def _lead(found: Predictions, case: Case) -> tuple[str, str, str]:
    return case.subject, shape_word(case.size), found.labels[case]


def _ratio(found: Predictions, case: Case, board: str, clock: str) -> str:
    if case in found.full and found.time(case, board, found.headline, clock):
        return "1"
    return span(found.ratio(case, board, clock))
