"""predictions.csv on disk."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from bench.case.predictions import PREDICTION_ROW, PREDICTIONS_CSV, Outcome
from bench.errors import short
from bench.reading import shape_of
from bench.record.read import CELLS, ROWS, ROWS_CSV, RUN, Row, read_csv, write_csv

MEASURED = (RUN, ROWS, ROWS_CSV)  # no prediction goes beside these
_NEEDED = ("case_id", "board", "board_name", "predicted_outcome", "predicted_on", "predicted_by")
_MEND = f"Remove {PREDICTIONS_CSV} and run python -m bench predict again."


def write_predictions(folder: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Writes predictions.csv as a whole. Raises OSError."""
    write_csv(folder / PREDICTIONS_CSV, (column.name for column in PREDICTION_ROW), rows)


def holds_measurements(folder: Path) -> bool:
    """Whether something was measured into the folder."""
    return any((folder / name).exists() for name in MEASURED)


def holds_predictions(folder: Path) -> bool:
    """Whether the folder is one of predictions, and of nothing measured."""
    return (folder / PREDICTIONS_CSV).exists() and not holds_measurements(folder)


def read_predictions(folder: Path) -> list[Row]:
    """The lines of predictions.csv; an empty cell is no key. Raises UserError for a damaged one, with its line."""
    return read_csv(folder / PREDICTIONS_CSV, _LINE, PREDICTION_ROW, _MEND, _MEND, _NEEDED)


def _known(row: Row) -> Row:
    outcome = row["predicted_outcome"]
    if outcome not in tuple(Outcome):
        raise ValueError(f"predicted_outcome is {short(outcome)}; valid: {', '.join(Outcome)}")
    if outcome == Outcome.predicted:
        if missing := [name for name in ("pass", "clock", "predicted_ms") if row.get(name) is None]:
            raise ValueError(f"there is no {missing[0]}")
        for what, unit in (("", "_ms"), ("ratio_", "")):
            middle = "predicted_ratio" if what else "predicted_ms"
            ends = [row.get(n) for n in (f"predicted_{what}low80{unit}", middle, f"predicted_{what}high80{unit}")]
            known = [v for v in ends if v is not None]
            if known != sorted(known) or len(known) not in (0, 3):
                raise ValueError(
                    f"{middle} and its 80 % interval are {', '.join(map(str, ends))}, which is no interval"
                )
    return row


_LINE = shape_of({column.name: CELLS[column.kind] for column in PREDICTION_ROW}, _NEEDED, _known)
