"""What a merge reads: the rows of results folders by the place of their lines, so that no folder lies in memory whole.

A folder may be measured into while it is read: a row counts once its line is whole.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any, BinaryIO, Self

from bench.case import Case, read_case
from bench.case.schema import Status
from bench.errors import UserError, printable, short
from bench.files import EARLIER
from bench.forks import mapped
from bench.reading import is_there, open_lines, open_plain
from bench.record.ratios import is_of
from bench.record.read import END, PACKED, ROWS, ROWS_CSV, RUN, SAMPLES, Row, kept_rows, read_run, sample_lines

Key = tuple[str, str, str, int]  # case_id, pass, clock, repeat
Id = tuple[str | None, ...]
Place = tuple[bool, int, int]  # of a line of samples: whether it was packed, where it stands, and its bytes

MANY = 2**23  # bytes of rows, for which one process takes more than a second

# In a folder that nothing was measured into yet.
_BEFORE = ("logs", EARLIER)


@dataclass(slots=True, eq=False)
class Found:
    """A row of a folder: where its line stands, and what decides on its place in a merged record."""

    source: "Source"
    at: int
    size: int
    key: Key
    run_id: str | None
    process: str | None
    measured_at: str
    ok: bool
    lacks_ratio: bool
    number: int  # its repeat in the merged record
    samples: Place | None = None

    @property
    def id(self) -> Id:
        """What no other row has: a merged record has it too, whatever the number of its repeat there."""
        return (self.source.run_of(self), *self.key[:3], self.process, self.measured_at)


@dataclass(eq=False)
class Source:
    """A results folder that something was measured into."""

    folder: Path
    run: dict[str, Any]  # run.json
    rows: list[Found] = field(default_factory=list)  # in the order of the file
    torn: list[Path] = field(default_factory=list)  # files whose last line is

    @cache  # noqa: B019  # a source lives as long as its merge
    def path(self, name: str) -> Path:
        return self.folder / name

    @property
    def is_merged(self) -> bool:
        return self.run.get("merged") is not None

    @property
    def gpu(self) -> tuple[str | None, int | None]:
        """What kind of device its rows are of."""
        return self.run.get("gpu"), self.run.get("sm_count")

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The runs that measured it, each as its run.json had it, with the name of its folder."""
        told = self.run["merged"] if self.is_merged else []
        new = {self.run_of(row) for row in self.rows} - {run["run_id"] for run in told}
        rest = {k: v for k, v in self.run.items() if k not in ("schema", "run_id", "invocations", "merged")}
        own = {"folder": printable(self.folder.resolve().name), **rest}
        return [*told, *({"run_id": run_id, **own} for run_id in sorted(new))]

    def run_of(self, row: Found) -> str:
        return row.run_id or str(self.run["run_id"])

    @cached_property
    def invocations(self) -> dict[str, list[dict[str, Any]]]:
        """Those of its runs, by the id of each, which they have, too."""
        found: dict[str, list[dict[str, Any]]] = {}
        for invocation in self.run.get("invocations") or []:
            told = {"run_id": self.run["run_id"]} | invocation
            found.setdefault(told["run_id"], []).append(told)
        return found


def read_source(folder: Path, cases: dict[str, Case]) -> Source | None:
    """The rows of a folder; None where nothing was measured into it yet. cases: gets the case of every case_id.

    Raises UserError for a damaged folder, one of another schema, and one with rows of several devices.
    """
    if not is_there(folder.is_dir):
        what = "this is a file" if is_there(folder.exists) else "no such folder"
        raise UserError(f"{folder}: {what}. Pass a results folder.")
    run = read_run(folder, ("schema", "run_id"), as_is=True)
    path = folder / ROWS
    if not run:
        _refuse(folder)
        return None
    if not os.path.lexists(path):
        return None
    source, texts = Source(folder, run), dict[str, str]()
    with open_lines(path) as file:
        for line in kept_rows(file, path):
            if line.value is None:
                source.torn.append(path)
                break
            _check_gpu(source, line.value, f"{path}:{line.number}")
            source.rows.append(_found(source, line.value, line.at, len(line.raw), cases, texts))
    return source if source.rows else None


def are_many(folders: Iterable[Path]) -> bool:
    """Whether the rows of folders are so many that several processes merge them sooner than one."""
    size = 0
    for folder in folders:
        with suppress(OSError, ValueError):
            size += (folder / ROWS).stat().st_size
    return size > MANY


def _refuse(folder: Path) -> None:
    """Raises UserError for a folder without run.json that holds anything else than what a run begins with."""
    for name in (ROWS, SAMPLES, PACKED, ROWS_CSV):
        if os.path.lexists(folder / name):
            raise UserError(f"{folder / name}: a record without its {RUN}, so nobody knows where it was measured.")
    if any(p.name not in _BEFORE and not p.name.startswith(".") for p in folder.iterdir()):
        inside = sorted(p.parent.relative_to(folder).as_posix() for p in folder.glob(f"*/{RUN}"))
        hint = f" Results folders in it: {', '.join(inside[:20])}." if inside else ""
        raise UserError(f"{folder}: this is no results folder: no {RUN} is in it.{hint}")


def _check_gpu(source: Source, row: Row, where: str) -> None:
    gpu = source.run["gpu"] = source.run.get("gpu") or row["gpu"]
    if row["gpu"] not in (None, gpu):
        raise UserError(
            f"{where}: measured on {short(row['gpu'], 200)}, and {source.folder / RUN} says {short(gpu, 200)}. Rows of"
            " two devices are no record; pass the folders in which each of them was measured."
        )


def _found(source: Source, row: Row, at: int, size: int, cases: dict[str, Case], texts: dict[str, str]) -> Found:
    case_id = row["case_id"]
    if case_id not in cases:
        cases[case_id] = read_case(row)

    def one(text: str | None) -> str:  # the same text once
        return texts.setdefault(text or "", text or "")

    key = (one(case_id), one(row["pass"]), one(row["clock"]), row["repeat"])
    ok = row["status"] == Status.ok
    lacks_ratio = ok and row["median_ms"] is not None and row["ratio"] is None
    made = one(row["run_id"]) or None, one(row["process"]) or None, one(row["measured_at"])
    return Found(source, at, size, key, *made, ok, lacks_ratio, row["repeat"])


class Lines:
    """Reads lines again by their place. As a context manager, so that what is open is closed."""

    def __init__(self) -> None:
        self._files: dict[str, tuple[Path, BinaryIO]] = {}  # the folder that was read last, by the names of its files
        self._unpacked = TemporaryFile()  # noqa: SIM115  # closed at the end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self._unpacked.close()
        for _, file in self._files.values():
            file.close()

    def find_samples(self, rows: Iterable[Found], many: bool) -> None:
        """Finds the line of samples behind each of the rows. many: so many that several processes do it. Raises
        UserError for a damaged line in their folders, be it of these rows or not."""
        wanted: dict[Source, dict[Key, Found]] = {}
        for row in rows:
            if row.ok:
                wanted.setdefault(row.source, {})[row.key] = row
        packed = any(os.path.lexists(source.path(PACKED)) for source in wanted)  # those are kept by this process
        parts = list(wanted.items())
        with closing(mapped(self._find, parts, many and not packed)) as found:
            for (source, own), (places, torn) in zip(parts, found, strict=True):
                source.torn = torn
                for row, place in zip(own.values(), places, strict=True):
                    row.samples = place

    def _find(self, part: tuple[Source, Mapping[Key, Found]]) -> tuple[list[Place | None], list[Path]]:
        """The places of the samples of a source's rows, and its torn files."""
        source, wanted = part
        for name in (PACKED, SAMPLES):
            if not os.path.lexists(path := source.folder / name):
                continue
            with closing(open_lines(path)) as file:
                for line in sample_lines(file, path):
                    if line.value is None:
                        source.torn.append(path)
                        break
                    row = wanted.get(
                        (line.value["case_id"], line.value["pass"], line.value["clock"], line.value["repeat"])
                    )
                    if row and is_of(line.value, {"run_id": row.run_id, "process": row.process}):
                        row.samples = (
                            name == PACKED,
                            self._keep(line.raw) if name == PACKED else line.at,
                            len(line.raw),
                        )
        return [row.samples for row in wanted.values()], source.torn

    def _keep(self, raw: bytes) -> int:
        at = self._unpacked.seek(0, os.SEEK_END)
        self._unpacked.write(raw)
        self._unpacked.flush()
        return at

    def row(self, found: Found) -> bytes:
        """Its line of rows.jsonl, without its end."""
        return self._read(found.source.path(ROWS), found.at, found.size)

    def samples(self, found: Found) -> bytes | None:
        """Its line of samples, likewise; None without one."""
        if found.samples is None:
            return None
        packed, at, size = found.samples
        return self._read(None if packed else found.source.path(SAMPLES), at, size)

    def _read(self, path: Path | None, at: int, size: int) -> bytes:
        file = self._unpacked if path is None else self._open(path)
        found = os.pread(file.fileno(), size, at)  # forks share where a file is read
        if len(found) < size:
            raise UserError(f"{path}: it became shorter while it was read. Merge again.")
        return found

    def _open(self, path: Path) -> BinaryIO:
        before, file = self._files.get(path.name, (None, None))
        if file is None or before is not path:  # Source.path gives the same one again
            if file is not None:
                file.close()
            file = open_plain(path)
            self._files[path.name] = path, file
        return file


def not_merged(sources: Iterable[Source]) -> list[str]:
    """The names of what else is in the folders, and stays there."""
    ours = {RUN, ROWS, ROWS_CSV, SAMPLES, PACKED, END, *_BEFORE}
    inside = (p.name for s in sources if not s.is_merged for p in s.folder.iterdir())
    return sorted({printable(name) for name in inside if name not in ours and not name.startswith(".")})


def first_of(rows: Iterable[Found]) -> str:
    """When the first of them was on disk."""
    return min((row.measured_at for row in rows), default="")
