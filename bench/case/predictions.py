"""The columns of predictions.csv: what a case is predicted to take on a board that is not here. No column of what is
predicted has the name of a measured one. `python -m bench.case.predictions` prints docs/predict.md's list. No torch."""

from enum import StrEnum

from bench.case.case import AXES
from bench.case.causes import CAUSES
from bench.case.columns import ROW, Column, column_table

PREDICTIONS_CSV = "predictions.csv"


class Outcome(StrEnum):
    """What a line of predictions.csv says of its case."""

    predicted = "predicted"
    too_large = "does not fit"  # into the board's memory
    unsupported = "unsupported"  # this impl cannot express this case
    untraced = "not predicted"  # a compiler makes its kernels, which no trace of operators sees


SHOWN = 80  # percent, of the intervals that people see
SAID = {"graph": "the GPU's time alone", "eager": "with the host", "cpu-time": "the processor's time"}  # by clock
CAUSE_COLUMNS = {cause: f"predicted_{cause}_ms" for cause in CAUSES}

_HALVES = tuple(
    Column(
        f"predicted_{what}{end}{level}{unit and '_' + unit}", f"{side} end of {of} {level} % interval", unit, "amount"
    )
    for what, of, unit in (("", "the predicted time's", "ms"), ("ratio_", "the predicted ratio's", ""))
    for level in (80, 90)
    for end, side in (("low", "lower"), ("high", "upper"))
)

PREDICTION_ROW = (
    Column("case_id", "12 hex digits over the axes, as in rows.csv"),
    Column("board", "the board that the line is predicted for, as --gpu names it"),
    Column("board_name", "its full name"),
    *(column for column in ROW if column.name in AXES),
    Column("pass", "forward, backward, forward-backward or step; empty where nothing is predicted"),
    Column("clock", "graph: the GPU's time alone; eager: with a host of the given cost; cpu-time: of --gpu cpu"),
    Column("predicted_outcome", f"one of {', '.join(Outcome)}"),
    Column("predicted_detail", "why nothing is predicted"),
    Column("predicted_ms", "predicted time of one call", "ms", "amount"),
    *_HALVES[:4],
    Column("predicted_gpu_ms", "of that, time in which the GPU works", "ms", "amount"),
    Column("predicted_host_ms", "time that the host takes to issue the call's operators", "ms", "amount"),
    Column("predicted_launches", "operators that launch something", kind="count"),
    Column("predicted_ratio", "predicted time over that of Full-FT, same board, pass and clock", kind="amount"),
    *_HALVES[4:],
    Column("predicted_ratio_to", "case_id of that Full-FT"),
    Column(
        "predicted_host_limit_us",
        "cost of an operator on the host above which the pass is launch-bound",
        "us",
        "amount",
    ),
    Column("predicted_launch_bound", "True where it is, at the host cost of this line", kind="flag"),
    Column("predicted_host_forward_us", "host cost of an operator of forward that was taken", "us", "amount"),
    Column("predicted_host_backward_us", "the same of backward", "us", "amount"),
    Column("predicted_host_source", "where that host cost comes from"),
    *(Column(name, f"of predicted_ms: {CAUSES[cause].label}", "ms", "amount") for cause, name in CAUSE_COLUMNS.items()),
    Column("predicted_on", "the day of the prediction"),
    Column(
        "predicted_by", "hash of the numbers that times are predicted by: bench/predict/fitted.yaml and boards.yaml"
    ),
)


def as_markdown() -> str:
    """The table of docs/predict.md."""
    return "\n".join([*column_table(PREDICTION_ROW), ""])


if __name__ == "__main__":
    print(as_markdown(), end="")
