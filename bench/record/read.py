"""The files of a results folder, checked by their schema: run.json, rows.jsonl or rows.csv, samples.jsonl.

`run` goes on in a folder, `compare`, `spread` and the report read one; all of them read it here. A key may be missing
unless its reader needs it, and keys of other versions are kept. What is there has the type and the range that is said
here, or is refused with its place.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import from_json

from bench.case.columns import COLUMNS, ROW, Column
from bench.case.names import tell_apart
from bench.case.schema import SCHEMA
from bench.errors import UserError, short
from bench.files import replace_file
from bench.reading import (
    LARGEST,
    Count,
    Flag,
    JsonLine,
    Number,
    Object,
    Plain,
    Shape,
    Text,
    checked,
    fields_of,
    json_lines,
    json_object,
    number,
    read_json,
    read_json_lines,
    read_text,
    shape_of,
)

Row = Object

RUN, ROWS, ROWS_CSV = "run.json", "rows.jsonl", "rows.csv"
SAMPLES, PACKED = "samples.jsonl", "samples.jsonl.gz"  # the second: as `make publish` leaves many samples
END = "end.json"  # in the folder of a shard's attempt: how it ended
KEY = ("case_id", "pass", "clock", "repeat")  # what makes a row one of its kind


# By the kinds of columns.
CELLS: dict[str, Any] = {
    **dict.fromkeys(("text", "time"), Annotated[Text, Field(max_length=10_000)]),
    "count": Count,
    "amount": number(0, 1e30),
    "share": number(0, 1),
    "flag": Flag,
}
_COLUMNS = {column.name: CELLS[column.kind] for column in ROW}
_INTERVALS = (("ci_low_ms", "median_ms", "ci_high_ms"), ("ratio_low", "ratio", "ratio_high"))


def _sound(row: Row) -> Row:
    """What no single column tells."""
    if row.get("median_ms") == 0:
        raise ValueError("median_ms is 0, and nothing takes no time")
    for names in _INTERVALS:
        known = [v for v in map(row.get, names) if v is not None]
        if known != sorted(known):
            raise ValueError(f"{', '.join(names)} are {', '.join(map(str, known))}, which is no interval")
        if known and row.get(names[1]) is None:  # the ends alone tell nothing
            row = row | dict.fromkeys(names)
    return row


_NOTHING: Row = dict.fromkeys(COLUMNS)


def _with_all_columns(row: Row) -> Row:
    return _NOTHING | row


_ANY_ROW = shape_of(_COLUMNS, (), _sound)
_KEPT_ROW = shape_of(_COLUMNS, (*KEY, "status"), _sound, _with_all_columns)

_Times = list[Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)]]


def _paired(line: Row) -> Row:
    samples, rounds = line.get("samples_ms"), line.get("rounds")
    if samples is not None and rounds is not None and len(rounds) != len(samples):
        raise ValueError(f"rounds are {len(rounds)} for {len(samples)} samples_ms")
    return line


_SAMPLE_FIELDS = {k: _COLUMNS[k] for k in (*KEY, "run_id", "process", "ratio_to")} | {
    "samples_ms": _Times, "rounds": list[Count], "turns": Text, "ratios": _Times
}  # fmt: skip
_LINE = shape_of(_SAMPLE_FIELDS, (*KEY, "samples_ms"), _paired)

_Invocation: Any = fields_of(
    {
        **dict.fromkeys(("started", "finished", "command"), Text),
        **dict.fromkeys(("cases", "open"), Count),
        "busy_cores": Number,
        "spent_s": dict[Text, Number],
        "settings": dict[Text, Plain],
        "sweep": Annotated[
            fields_of(dict.fromkeys(("name", "description", "text"), Text) | {"words": list[Text]}),
            BeforeValidator(lambda found: {"name": found} if isinstance(found, str) else found),
        ],
    }
)
# It names a folder inside earlier/, and must not lead out of there.
_RunId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
_ENVIRONMENT: dict[str, Any] = {
    "run_id": _RunId,
    **dict.fromkeys(
        ("gpu", "gpu_key", "gpu_uuid", "driver", "source_hash", "torch", "triton", "transformers", "peft", "python",
         "platform", "commit", "cuda"),
        Annotated[Text, Field(max_length=10_000)],
    ),
    **dict.fromkeys(("sm_count", "memory_mib", "cores", "threads"), Count),
    **dict.fromkeys(("dirty", "clocks_locked"), Flag),
    **dict.fromkeys(("ceilings", "gpu_clocks"), dict[Text, Plain]),
}  # fmt: skip
_Merged: Any = fields_of(_ENVIRONMENT | {"folder": Text}, ("run_id", "folder"))  # a run that others were merged with
_RUN_FIELDS: dict[str, Any] = {
    "schema": int,
    **_ENVIRONMENT,
    "invocations": list[_Invocation],
    "merged": list[_Merged],
}


def read_run(folder: Path, needed: tuple[str, ...] = ("schema",), as_is: bool = False) -> Row:
    """run.json of a folder; empty where there is none. as_is: with texts that may not be shown, to be written again.
    Raises UserError for a damaged one, one of another schema, and one without a needed key."""
    path = folder / RUN
    if not path.is_symlink() and not path.exists():
        return {}
    value = read_json(path, "Mend it, or pass another folder.")
    found = value.get("schema", None if "schema" in needed else SCHEMA) if isinstance(value, dict) else SCHEMA
    if found != SCHEMA or isinstance(found, bool):
        raise UserError(
            f"{path}: found schema {short(found)}. This version reads schema {SCHEMA} alone; pass another folder."
        )
    shown = checked(value, _runs(needed), str(path), "Mend it, or pass another folder.")
    return value if as_is else {key: shown[key] for key in value}  # in the file's order


@cache
def _runs(needed: tuple[str, ...]) -> Shape:
    return shape_of(_RUN_FIELDS, needed)


def shapes() -> dict[str, Shape]:
    """What a run writes: a line of rows.jsonl, one of samples.jsonl, and run.json, each by its file."""
    return {ROWS: _KEPT_ROW, SAMPLES: _LINE, RUN: _runs(("schema", "run_id", "invocations"))}


def kept_rows(file: BinaryIO, path: Path) -> Iterator[JsonLine]:
    """The rows of an open rows.jsonl, one after the other, each as `read_kept_rows` has it. Raises UserError."""
    return json_lines(file, path, _KEPT_ROW)


def kept_row(raw: bytes, where: str) -> Row:
    """The row of a line that `kept_rows` gave. Raises UserError where it is another one by now."""
    if raw.isascii() and not raw.count(b"\\") and not raw.count(b"\x7f"):  # no text in it is shown otherwise than it is
        with suppress(ValueError):
            return _with_all_columns(_sound(from_json(raw)))
    return json_object(raw, _KEPT_ROW, where)


def sample_lines(file: BinaryIO, path: Path) -> Iterator[JsonLine]:
    """The lines of an open file of samples, one after the other. Raises UserError."""
    return json_lines(file, path, _LINE)


def read_kept_rows(folder: Path) -> tuple[list[Row], int | None]:
    """The rows of rows.jsonl, each with its key, its status and all columns, and the byte at which a torn last line
    begins. Raises UserError."""
    found, torn = read_json_lines(folder / ROWS, _KEPT_ROW)
    tell_apart(row["model"] for row in found)
    return found, torn


def read_rows(folder: Path) -> tuple[list[Row], int | None]:
    """The same of any age: whatever columns there are, from rows.csv where rows.jsonl is missing. Raises UserError."""
    if (folder / ROWS).exists() or not (folder / ROWS_CSV).exists():
        found, torn = read_json_lines(folder / ROWS, _ANY_ROW)
    else:
        advice = ("Mend the line.", "Copy it again, or remove it.")
        found, torn = read_csv(folder / ROWS_CSV, _ANY_ROW, ROW, *advice), None
    tell_apart(str(row["model"]) for row in found if row.get("model"))
    return found, torn


def read_record(folder: Path) -> tuple[list[Row], int | None]:
    """The rows of a folder with all columns, from rows.csv where rows.jsonl is missing, and the byte at which a torn
    last line begins. Raises UserError for a damaged record, and for a folder without any."""
    if (folder / ROWS).exists() or not (folder / ROWS_CSV).exists():
        if not (folder / ROWS).exists() and not (folder / RUN).exists():
            what = "this is no results folder" if folder.is_dir() else "no such folder"
            raise UserError(f"{folder}: {what}. One that `python -m bench run` has filled holds {ROWS} and {RUN}.")
        return read_kept_rows(folder)
    return read_csv(folder / ROWS_CSV, _KEPT_ROW, ROW, "Mend the line.", "Copy it again.", (*KEY, "status")), None


def read_csv(
    path: Path, shape: Shape, columns: Iterable[Column], mend_line: str, mend_file: str, needed: Iterable[str] = ()
) -> list[Row]:
    """The lines of a CSV of these columns, checked; an empty cell is no value. needed: columns that must be there.
    Raises UserError with the place and what to do about a line, or about the file."""
    kinds: dict[str, str] = {column.name: column.kind for column in columns}
    reader, rows = csv.DictReader(io.StringIO(read_text(path, LARGEST), newline="")), []
    if missing := [name for name in needed if name not in (reader.fieldnames or ())]:
        raise UserError(f"{path}: no column {', '.join(missing)} in its first line. {mend_file}")
    try:
        for line in reader:
            cells = {k: _cell(kinds.get(k, "text"), v) for k, v in line.items() if k is not None and v}
            rows.append(checked(cells, shape, f"{path}:{reader.line_num}", mend_line))
    except csv.Error as e:
        raise UserError(f"{path}:{reader.line_num}: not CSV ({e}). {mend_file}") from None
    return rows


def write_csv(
    path: Path,
    names: Iterable[str],
    rows: Iterable[Mapping[str, object]],
    extra: Literal["raise", "ignore"] = "raise",
) -> None:
    """A CSV as a whole, by the names of its columns. extra: what becomes of a value that has no column. Raises OSError,
    and ValueError for such a value."""
    replace_file(path, csv_text(names, rows, extra))


def csv_text(
    names: Iterable[str],
    rows: Iterable[Mapping[str, object]],
    extra: Literal["raise", "ignore"] = "raise",
    head: bool = True,
) -> str:
    """The same as a text. head: whether the first line, of the names, is in it. Raises ValueError for a value that has
    no column."""
    names, text = list(names), io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    if head:
        writer.writerow(names)
    for row in rows:
        if extra == "raise" and (more := row.keys() - names):
            raise ValueError(f"no column for {', '.join(sorted(more))}")
        writer.writerow(map(row.get, names))
    return text.getvalue()


def _cell(kind: str, text: str) -> Any:
    """The value of a CSV's cell; what is none stays as it is, for the schema to refuse."""
    if kind in ("text", "time"):
        return text
    try:
        value = json.loads(text.lower())  # True and False are as Python writes them
    except (ValueError, RecursionError):
        return text
    return int(value) if isinstance(value, float) and value.is_integer() and kind == "count" else value


def read_samples(folder: Path) -> tuple[list[Row], int | None]:
    """The lines of samples, those that were packed first, and the byte at which a torn last line begins in
    samples.jsonl. Raises UserError."""
    packed, _ = read_json_lines(folder / PACKED, _LINE)
    lines, torn = read_json_lines(folder / SAMPLES, _LINE)
    return packed + lines, torn
