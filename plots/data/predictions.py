"""What predictions.csv of a folder holds, arranged for tables and figures. Nothing of it was measured."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.case import Case, read_case
from bench.case.clocks import CLOCKS
from bench.case.predictions import Outcome
from bench.errors import UserError
from bench.methods.registry import methods
from bench.record.predictions import read_predictions
from bench.record.stats import Estimate
from plots.data.labels import labels

Row = dict[str, Any]
WINNER = "A ratio whose interval holds 1 claims no winner."


@dataclass(frozen=True, eq=False)
class Predictions:
    """A folder of predictions."""

    path: Path
    rows: tuple[Row, ...]

    @cached_property
    def _cases(self) -> dict[str, Case]:
        return {row["case_id"]: read_case(row) for row in self.rows}

    @cached_property
    def cases(self) -> list[Case]:
        """In the order of models and lengths, Full-FT first and then method by method."""
        found, order = list(self._cases.values()), list(methods())
        subjects = list(dict.fromkeys(c.subject for c in found))
        rank = {method: i for i, method in enumerate(order)}
        return sorted(
            found, key=lambda c: (subjects.index(c.subject), c.tokens, c.size, rank.get(c.method, len(order)))
        )

    @cached_property
    def labels(self) -> dict[Case, str]:
        """Training types; the precision is named where there are several."""
        named = labels(self.cases)
        several = len({c.precision for c in self.cases}) > 1
        return {c: f"{label} {c.precision}" if several else label for c, label in named.items()}

    @cached_property
    def boards(self) -> dict[str, str]:
        """Full names by key."""
        return {row["board"]: row["board_name"] for row in self.rows}

    @cached_property
    def clocks(self) -> list[str]:
        """The headline's first: eager, where it was predicted."""
        there = {row["clock"] for row in self.rows if row.get("clock")}
        return [clock for clock in CLOCKS if clock in there]

    @cached_property
    def passes(self) -> list[str]:
        return list(dict.fromkeys(row["pass"] for row in self.rows if row.get("pass")))

    @property
    def headline(self) -> str:
        """The pass whose ratio is shown."""
        return "forward-backward" if "forward-backward" in self.passes else (self.passes or [""])[-1]

    @cached_property
    def _index(self) -> dict[tuple[Case, str, str, str], Row]:
        return {
            (self._cases[r["case_id"]], r["board"], r["pass"], r["clock"]): r
            for r in self.rows
            if r["predicted_outcome"] == Outcome.predicted
        }

    @cached_property
    def _words(self) -> dict[tuple[Case, str], str]:
        """What stands in place of times."""
        none = (r for r in self.rows if r["predicted_outcome"] != Outcome.predicted)
        return {(self._cases[r["case_id"]], r["board"]): r["predicted_outcome"] for r in none}

    def word(self, case: Case, board: str) -> str:
        """Why there is no prediction; empty where there is one, or was none asked for."""
        return self._words.get((case, board), "")

    def time(self, case: Case, board: str, pass_: str, clock: str) -> Estimate | None:
        """In ms, with its interval."""
        return _estimate(self._index.get((case, board, pass_, clock)), "predicted_ms", "predicted_{}80_ms")

    def ratio(self, case: Case, board: str, clock: str) -> Estimate | None:
        """Of the headline's pass to Full-FT's, with its interval; None of Full-FT itself."""
        row = self._index.get((case, board, self.headline, clock))
        return _estimate(row, "predicted_ratio", "predicted_ratio_{}80")

    @cached_property
    def full(self) -> set[Case]:
        """What ratios are to."""
        ids = {row.get("predicted_ratio_to") for row in self.rows}
        return {case for id_, case in self._cases.items() if id_ in ids}

    @property
    def provenance(self) -> str:
        """When, by which numbers, and at which cost of the host."""
        days, numbers = (sorted({r[k] for r in self.rows}) for k in ("predicted_on", "predicted_by"))
        hosts = {
            f"{r['predicted_host_forward_us']:.3g} us forward and {r['predicted_host_backward_us']:.3g} us backward an"
            f" operator, {r.get('predicted_host_source', '')}"
            for r in self.rows
            if r.get("predicted_host_forward_us") is not None and r.get("predicted_host_backward_us") is not None
        }
        host = f" Cost of the host: {'; '.join(sorted(hosts))}." if hosts else ""
        return f"Predicted on {', '.join(days)} by the fitted numbers {', '.join(numbers)}.{host}"


def _estimate(row: Row | None, value: str, ends: str) -> Estimate | None:
    if row is None or row.get(value) is None:
        return None
    return Estimate(row[value], row.get(ends.format("low")), row.get(ends.format("high")))


def load_predictions(path: Path) -> Predictions:
    """Reads a folder of predictions. Raises UserError where it is damaged or empty."""
    rows = read_predictions(path)
    if not rows:
        raise UserError(f"{path}: predictions.csv has no line. Run python -m bench predict again.")
    return Predictions(path, tuple(rows))
