"""Reads a results folder: rows.jsonl (or rows.csv), samples.jsonl, run.json, causes.csv. Every key of every file but
the last is optional."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import UserError
from bench.record.read import read_rows, read_run, read_samples

if TYPE_CHECKING:
    from bench.record.causes import Key as CausesKey
    from bench.record.causes import Split

ROW_FILES = ("rows.jsonl", "rows.csv")  # the record first; the CSV is derived from it
HELD_FILES = (*ROW_FILES, "run.json")  # of which a results folder holds at least one

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
    causes: "Mapping[CausesKey, Split]" = field(default_factory=dict)

    @property
    def sweep(self) -> str | None:
        """Name of the sweep that was run last."""
        last = self.invocations[-1] if self.invocations else {}
        return (last.get("sweep") or {}).get("name")

    @property
    def sweep_name(self) -> str:
        """The same, without the rest of its path; a folder that does not say which sweep it holds is taken by its own
        name."""
        return Path(self.sweep or self.path.resolve()).stem

    @property
    def invocations(self) -> list[dict[str, Any]]:
        return self.run.get("invocations") or []

    @property
    def is_cpu(self) -> bool:
        """Measured without a GPU."""
        clocks = {row.get("clock") for row in self.rows if row.get("clock")}
        return self.run.get("gpu_key") == "cpu" or (bool(clocks) and clocks <= {"cpu-time", "cpu"})

    @property
    def clocks_word(self) -> str:
        """Whether the GPU's clocks were locked."""
        found = self.run.get("clocks_locked", (self.run.get("gpu_clocks") or {}).get("locked"))
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


def row_key(row: dict[str, Any]) -> Key:
    """What makes a row what it is, the same for rows and for their samples."""
    return tuple(text(row.get(name)) or "" for name in ("case_id", "pass", "clock", "repeat"))  # type: ignore[return-value]


def _stale(row: dict[str, Any], names: Iterable[str], values: Iterable[Any]) -> bool:
    pairs = [(row.get(name), value) for name, value in zip(names, values, strict=True)]
    return any(None not in pair and pair[0] != pair[1] for pair in pairs)


def _line(found: dict[str, Any]) -> Line:
    samples, rounds, ratios = (tuple(found.get(name) or ()) for name in ("samples_ms", "rounds", "ratios"))
    turns, ratio_to = (found.get(name) or "" for name in ("turns", "ratio_to"))
    return Line(samples, rounds, turns, ratio_to, ratios)


def load(path: Path) -> Folder:
    """Reads one results folder. Raises UserError where there is none, one of another schema, or a damaged
    one."""
    from bench.record.causes import read_causes  # imports numpy, which --help does without

    if not path.is_dir():
        raise UserError(f"{path}: no such folder. A results folder holds one of {', '.join(HELD_FILES)}.")
    if not any((path / name).exists() for name in HELD_FILES):
        raise UserError(f"{path}: this is no results folder: none of {', '.join(HELD_FILES)} is in it.")
    notes: list[str] = []
    run = read_run(path, needed=())
    if (path / ROW_FILES[1]).exists() and not (path / ROW_FILES[0]).exists():
        notes.append("rows.jsonl is missing: read from rows.csv")
    found, torn = read_rows(path)
    lines, torn_samples = read_samples(path)
    torn_files = [name for name, at in (("rows.jsonl", torn), ("samples.jsonl", torn_samples)) if at is not None]
    notes += [f"{name}: its last line is torn and was passed over" for name in torn_files]
    rows = {row_key(row): row for row in found}
    samples = {row_key(line): _line(line) for line in lines}
    # Samples of a run that is not the row's belong to a measurement that was replaced. In a merged record, whose
    # repeats get other numbers as runs are added, those of another process may be another repeat's.
    names = ("run_id", "process") if run.get("merged") is not None else ("run_id",)
    made_by = {row_key(line): [line.get(name) for name in names] for line in lines}
    kept = {key: line for key, line in samples.items() if key in rows and not _stale(rows[key], names, made_by[key])}
    return Folder(path, tuple(rows.values()), kept, run, tuple(notes), read_causes(path))
