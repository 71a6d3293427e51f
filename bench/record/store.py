"""The record of a results folder: rows.jsonl and samples.jsonl, append-only, and run.json beside them.

A row is on disk, fsynced, before the next case starts; rows.csv is derived from the record and may be deleted. A line
cut off by a kill is dropped and its case measured again. Nothing is ever overwritten: what must give way moves to
earlier/<run_id>/.
"""

import json
import secrets
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.case.columns import COLUMNS
from bench.case.schema import SCHEMA
from bench.errors import UserError, printable, short
from bench.files import EARLIER, append_json_lines, refuse_links, replace_file, set_aside
from bench.record.budget import with_budget
from bench.record.environment import IDENTITY
from bench.record.ratios import with_ratios
from bench.record.read import ROWS_CSV, Row, read_kept_rows, read_run, read_samples, write_csv

Key = tuple[str, str, str, int]


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def key_of(row: Row) -> Key:
    """What makes a row one of its kind; a later one of the same key stands for it."""
    return (row["case_id"], row["pass"], row["clock"], row["repeat"])


class Record:
    """The rows of a results folder in memory and on disk. Open it with `open_record`."""

    def __init__(self, folder: Path, run: dict[str, Any], rows: Iterable[Row] = ()) -> None:
        self.folder = folder
        self.run = run
        self.notes: list[str] = []  # what a person should know about how the folder was found
        self.before_adding: Callable[[], None] = lambda: None  # may raise, and then nothing is written
        self._rows: dict[Key, Row] = {key_of(row): row for row in rows}

    @property
    def rows(self) -> list[Row]:
        """The latest row of every key, in the order in which the keys first came."""
        return list(self._rows.values())

    def get(self, key: Key) -> Row | None:
        return self._rows.get(key)

    def add(self, rows: list[Row], samples: list[Row]) -> None:
        """Appends the rows of one finished case and their samples; on disk when this returns.

        Samples go first: a row that is there has its samples. Raises OSError, after undoing what was half written.
        """
        self.before_adding()
        # An error may name a path that is no Unicode, which nobody could read back.
        rows = [{k: printable(v) if isinstance(v, str) else v for k, v in row.items()} for row in rows]
        append_json_lines(self.folder / "samples.jsonl", samples)
        append_json_lines(self.folder / "rows.jsonl", rows)
        self._rows |= {key_of(r): r for r in rows}

    def load(self) -> None:
        """Reads rows.jsonl. A torn last line is cut off the file, with a note; any other is refused by its number."""
        samples, (lines, torn_row) = read_samples(self.folder), read_kept_rows(self.folder)
        for name, torn in (("samples.jsonl", samples[1]), ("rows.jsonl", torn_row)):
            if torn is not None:
                with open(self.folder / name, "r+b") as f:
                    f.truncate(torn)
                self.notes.append(f"{self.folder / name}: the last line was torn; dropped, its case is measured again")
        self._rows = {key_of(row): row for row in lines}

    def samples(self) -> dict[Key, list[float]]:
        """The samples behind the rows, in ms and in the order in which they were taken, read from disk."""
        return {key_of(line): line["samples_ms"] for line in read_samples(self.folder)[0]}

    def write_run(self) -> None:
        replace_file(self.folder / "run.json", json.dumps(self.run, indent=1) + "\n")

    def write_csv(self) -> None:
        """rows.csv: the record as a tidy table. An empty cell means not measured. A case that was measured alone has
        the quotient of the medians as its ratio; what is derived from a row is worked out here."""
        rows = with_budget(with_ratios(self.rows, read_samples(self.folder)[0]), self.run)
        write_csv(self.folder / ROWS_CSV, COLUMNS, rows, extra="ignore")


def open_record(folder: Path, environment: dict[str, Any], fresh: bool = False) -> Record:
    """Opens a results folder to go on in it, or starts a new one.

    A record from another schema or GPU is refused. One from other sources or other versions of torch, triton or the
    driver, and any under `fresh`, moves to earlier/<run_id>/. Raises UserError; nothing was changed then.
    """
    found = check_record(folder, environment, fresh)
    notes = []
    if found is not None and fresh:
        notes.append(f"the earlier record is in {move_aside(folder, found)}")
        found = None
    if found is not None:
        changed = _changed(found, environment)
        if changed:
            what = ", ".join(f"{k} {found.get(k)} -> {environment.get(k)}" for k in changed)
            notes.append(f"measured in another environment ({what}): that record moved to {move_aside(folder, found)}")
            found = None
    if found is None:
        run_id = datetime.now(UTC).strftime("%Y%m%dT%H%M%S") + "-" + secrets.token_hex(3)
        found = {"schema": SCHEMA, "run_id": run_id, **environment, "invocations": []}
    record = Record(folder, found)
    record.notes = notes
    folder.mkdir(parents=True, exist_ok=True)
    record.load()
    return record


def check_record(folder: Path, environment: dict[str, Any], fresh: bool = False) -> dict[str, Any] | None:
    """run.json of a folder, None without one. Raises UserError where `open_record` would refuse what is in the folder.
    Changes nothing."""
    found = _read_run(folder)
    if found is not None and not fresh and found.get("gpu") != environment["gpu"]:
        raise UserError(
            f"{folder / 'run.json'}: measured on {short(found.get('gpu'), 200)}, this is {environment['gpu']!r};"
            " pass another --out, or --fresh to set the record aside"
        )
    return found


def peek_record(folder: Path, environment: dict[str, Any]) -> Record | None:
    """The record of a folder, read without changing anything and so without the device's lock; None where there is
    none, or where `open_record` would set it aside or mend it. Raises UserError for a damaged one."""
    found = _read_run(folder)
    if found is None or _changed(found, environment):
        return None
    lines, torn = read_kept_rows(folder)
    return None if torn is not None else Record(folder, found, lines)


def _changed(run: dict[str, Any], environment: dict[str, Any]) -> list[str]:
    """In what a record was measured in another environment."""
    return [k for k in IDENTITY if run.get(k) != environment.get(k)]


def _read_run(folder: Path) -> dict[str, Any] | None:
    path = folder / "run.json"
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--out {folder}: this is a file. Pass a folder, new or from an earlier run.")
    refuse_links(folder)
    if not path.exists():
        for name in ("rows.jsonl", "samples.jsonl"):
            if (folder / name).exists():
                raise UserError(f"{folder / name}: a record without its run.json; move it away, or pass another --out")
        return None
    return read_run(folder, ("schema", "run_id", "invocations"), as_is=True)


def move_aside(folder: Path, run: dict[str, Any]) -> Path:
    """Moves a whole record, drawings included, to earlier/<run_id>/; run.json last: cut off, it still says whose."""
    paths = [p for p in folder.iterdir() if p.name != EARLIER and not p.name.startswith(".")]  # a lock stays
    return set_aside(folder, run["run_id"], sorted(paths, key=lambda p: (p.name == "run.json", p.name)))
