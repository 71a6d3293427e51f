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


def comparison_tables(found: Predictions, clock: str) -> list[Table]:
    """All boards side by side: ratios, then times, of the headline's pass."""
    said = f"clock {clock}: {SAID.get(clock, clock)}"
    ratios, times = [], []
    for case in found.cases:
        ratios.append((*_lead(found, case), *(_ratio(found, case, board, clock) for board in found.boards)))
        of_boards = (span(found.time(case, board, found.headline, clock)) for board in found.boards)
        words = (found.word(case, board) for board in found.boards)
        times.append((*_lead(found, case), *(time or word for time, word in zip(of_boards, words, strict=True))))
    lead = ("Model", "Batch x length", "Training type")
    names: tuple[tuple[str, tuple[str, ...]], ...] = tuple((f"{name}, predicted", ()) for name in found.boards.values())
    caption = f"Predicted, not measured: {found.headline}. {SHOWN} % intervals. {{}}{found.provenance}"
    return [
        Table(f"Predicted ratio to Full-FT, {said}", caption.format(f"{WINNER} "), lead, names, tuple(ratios)),
        Table(f"Predicted time, ms, {said}", caption.format(""), lead, names, tuple(times)),
    ]


def _lead(found: Predictions, case: Case) -> tuple[str, str, str]:
    return case.subject, shape_word(case.size), found.labels[case]


def _ratio(found: Predictions, case: Case, board: str, clock: str) -> str:
    if case in found.full and found.time(case, board, found.headline, clock):
        return "1"
    return span(found.ratio(case, board, clock))
