"""rows.csv of a merged record, part by part: its rows with the ratios that they lack and with what is derived."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic_core import from_json

from bench.case import Case
from bench.case.columns import COLUMNS
from bench.case.schema import BASELINE
from bench.record.budget import with_budget
from bench.record.ratios import with_ratios
from bench.record.read import Row, csv_text, kept_row
from bench.record.sources import Found, Lines

RATIO = ("ratio", "ratio_low", "ratio_high", "ratio_to")

Comparison = tuple[object, ...]
Beside = tuple[Comparison, str, str, int]  # comparison, pass, clock, repeat: of rows that a ratio may be between


def line_of(row: Found, raw: bytes) -> bytes:
    """A line as it stands in the merged record."""
    if row.number == row.key[3] and row.run_id:
        return raw + b"\n"
    found = json.loads(raw) | {"repeat": row.number, "run_id": row.source.run_of(row)}
    return json.dumps(found).encode() + b"\n"


class Table:
    """Makes lines of rows.csv. rows: all of the record. run: its run.json."""

    def __init__(self, rows: Sequence[Found], cases: Mapping[str, Case], lines: Lines, run: Mapping[str, Any]) -> None:
        self.rows, self.lines, self._run = rows, lines, run
        self._comparisons = {case_id: case.comparison for case_id, case in cases.items()}
        full = {case_id for case_id, case in cases.items() if case.method == BASELINE}
        self._baselines: dict[Comparison, dict[str, Found]] = {}  # the first row of each
        self._beside: dict[Beside, dict[str, Found]] = {}  # those of a baseline
        for row in rows:
            if row.key[0] in full:
                self._baselines.setdefault(self._comparisons[row.key[0]], {}).setdefault(row.key[0], row)
                self._beside.setdefault(self._place(row), {})[row.key[0]] = row

    def text(self, rows: Iterable[Found]) -> bytes:
        """The lines of some of the rows. Raises UserError where a file has changed meanwhile."""
        known = {row: self._read(row) for row in rows}
        ratios = self._ratios(known)
        told = (found | ratios.get(row, {}) for row, found in known.items())
        text = csv_text(COLUMNS, (one for row in told for one in with_budget([row], self._run)), "ignore", head=False)
        return text.encode("utf-8", "backslashreplace")

    def _place(self, row: Found) -> Beside:
        return self._comparisons[row.key[0]], row.key[1], row.key[2], row.number

    def _read(self, row: Found) -> Row:
        found = kept_row(self.lines.row(row), str(row.source.folder))
        return found | {"repeat": row.number, "run_id": row.source.run_of(row)}

    def _ratios(self, known: Mapping[Found, Row]) -> dict[Found, Row]:
        """The ratios that rows lack, as `with_ratios` gives them: comparison by comparison, so that the samples of one
        lie in memory, and not all."""
        beside: dict[Beside, list[Found]] = {}
        for row in known:
            if row.lacks_ratio:
                beside.setdefault(self._place(row), []).append(row)
        found: dict[Found, Row] = {}
        for place, lacking in beside.items():
            base = self._baselines.get(place[0], {}) | self._beside.get(place, {})
            if base:
                needed = [*base.values(), *(row for row in lacking if row.key[0] not in base)]
                given = [from_json(line_of(r, raw)) for r in needed if (raw := self.lines.samples(r)) is not None]
                made = with_ratios([known.get(row) or self._read(row) for row in needed], given)
                told = {row: {name: new[name] for name in RATIO} for row, new in zip(needed, made, strict=True)}
                found |= {row: told[row] for row in lacking}
        return found
