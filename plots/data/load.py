"""Reads a results folder: rows.jsonl (or rows.csv), samples.jsonl, run.json. Every key of every file is optional."""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.case.schema import SCHEMA
from bench.errors import UserError
from bench.files import read_json_lines

ROW_FILES = ("rows.jsonl", "rows.csv")  # the record first; the CSV is derived from it
SAMPLE_FILES = ("samples.jsonl", "samples.jsonl.gz")  # the second: as `make publish` leaves many samples

Key = tuple[str, str, str, str]  # case_id, pass, clock, repeat


@dataclass(frozen=True)
class Line:
    """What samples.jsonl has of one row. Fields are as those of bench.record.stats.Repeat."""

    samples_ms: tuple[float, ...]
    rounds: tuple[int, ...] = ()
    turns: str = ""
    ratio_to: str = ""
    ratios: tuple[float, ...] = ()


@dataclass(frozen=True)
class Folder:
    """What a results folder holds. A later row with the same key has replaced the earlier one."""

    path: Path
    rows: tuple[dict[str, Any], ...]
    lines: dict[Key, Line]  # of samples
    run: dict[str, Any]
    notes: tuple[str, ...]  # what was passed over while reading

    @property
    def sweep(self) -> str | None:
        """Name of the sweep that was run last."""
        last = self.invocations[-1] if self.invocations else {}
        sweep = last.get("sweep")
        name = sweep.get("name") if isinstance(sweep, dict) else sweep
        return name if isinstance(name, str) else None

    @property
    def invocations(self) -> list[dict[str, Any]]:
        found = self.run.get("invocations")
        return [i for i in found if isinstance(i, dict)] if isinstance(found, list) else []

    @property
    def is_cpu(self) -> bool:
        """Measured without a GPU."""
        clocks = {row.get("clock") for row in self.rows if row.get("clock")}
        return self.run.get("gpu_key") == "cpu" or (bool(clocks) and clocks <= {"cpu-time", "cpu"})

    @property
    def clocks_word(self) -> str:
        """Whether the GPU's clocks were locked."""
        clocks = self.run.get("gpu_clocks")
        found = self.run.get("clocks_locked", clocks.get("locked") if isinstance(clocks, dict) else None)
        return "not known to be locked" if not isinstance(found, bool) else "locked" if found else "not locked"

    @property
    def device(self) -> str:
        """What it was measured on, as the record names it."""
        named = [row["gpu"] for row in self.rows if row.get("gpu")]
        found = named[0] if named else self.run.get("gpu") or self.run.get("gpu_key")
        if self.is_cpu:
            return "a CPU" if found in (None, "cpu") else f"a CPU ({found})"
        return str(found) if found else "an unnamed device"


def text(value: object) -> str | None:
    """The value as text; None for what counts as an empty cell."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def number(value: object) -> float | None:
    """The value as a finite number, or None."""
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return found if math.isfinite(found) else None


def flag(value: object) -> bool:
    """True for what JSON and CSV write for true."""
    return value is True or str(value).lower() in ("true", "1")


def row_key(row: dict[str, Any]) -> Key:
    """What makes a row what it is, the same for rows and for their samples."""
    return tuple(text(row.get(name)) or "" for name in ("case_id", "pass", "clock", "repeat"))  # type: ignore[return-value]


def _finite(times: list[object]) -> tuple[float, ...]:
    """The times that are numbers; quick where all of them are, for there may be millions."""
    if set(map(type, times)) <= {float, int} and all(map(math.isfinite, times)):  # type: ignore[arg-type]
        return tuple(times)  # type: ignore[arg-type]
    return tuple(t for t in map(number, times) if t is not None)


def _line(found: dict[str, Any]) -> Line:
    """A line of samples; without rounds where its lists are damaged, so that they are no pairs."""
    samples, rounds, ratios = (
        x if isinstance(x := found.get(name), list) else [] for name in ("samples_ms", "rounds", "ratios")
    )
    times = _finite(samples)
    paired = len(times) == len(samples) == len(rounds) and set(map(type, rounds)) == {int}
    turns, ratio_to = (text(found.get(name)) or "" for name in ("turns", "ratio_to"))
    return Line(times, tuple(rounds) if paired else (), turns, ratio_to, tuple(r for r in _finite(ratios) if r > 0))


def _json_lines(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines. Only the last line may be torn: a write was cut off there."""
    lines, torn = read_json_lines(path)
    notes += [f"{path.name}: its last line is torn and was passed over"] if torn is not None else []
    return lines


def read_object(path: Path) -> dict[str, Any]:
    """The object of a JSON file; empty where there is no file. Raises UserError."""
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: the file is no valid JSON ({error}). Copy it again, or remove it.") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: found a {type(found).__name__}. The file should hold one JSON object.")
    return found


def _read_run(path: Path) -> dict[str, Any]:
    """run.json. A schema other than ours is refused."""
    run = read_object(path)
    if run.get("schema", SCHEMA) != SCHEMA:
        raise UserError(f"{path}: found schema {run['schema']!r}. This version reads schema {SCHEMA} alone.")
    return run


def load(path: Path) -> Folder:
    """Reads one results folder. Raises UserError where there is none, or one of another schema."""
    looked_for = (*ROW_FILES, "run.json")
    if not path.is_dir():
        raise UserError(f"{path}: no such folder. A results folder holds one of {', '.join(looked_for)}.")
    if not any((path / name).exists() for name in looked_for):
        raise UserError(f"{path}: this is no results folder: none of {', '.join(looked_for)} is in it.")
    notes: list[str] = []
    run = _read_run(path / "run.json")
    rows: dict[Key, dict[str, Any]] = {}
    if (path / "rows.jsonl").exists():
        for row in _json_lines(path / "rows.jsonl", notes):
            rows[row_key(row)] = row
    elif (path / "rows.csv").exists():
        notes.append("rows.jsonl is missing: read from rows.csv")
        with (path / "rows.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                rows[row_key(row)] = row
    samples: dict[Key, Line] = {}
    runs: dict[Key, object] = {}
    found = next((path / name for name in SAMPLE_FILES if (path / name).exists()), None)
    if found is not None:
        for line in _json_lines(found, notes):
            if isinstance(line.get("samples_ms"), list):
                samples[row_key(line)] = _line(line)
                runs[row_key(line)] = line.get("run_id")
    # Samples of a run that is not the row's belong to a measurement that was replaced.
    stale = {key for key, row in rows.items() if key in runs and None not in (row.get("run_id"), runs[key])}
    stale = {key for key in stale if rows[key]["run_id"] != runs[key]}
    kept = {key: line for key, line in samples.items() if key in rows and key not in stale}
    return Folder(path, tuple(rows.values()), kept, run, tuple(notes))
