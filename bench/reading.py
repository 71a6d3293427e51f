"""Reads files that anybody may have damaged: bounded in size, checked by a schema, refused in one sentence.

Whatever comes from disk passes here once: a results folder from another machine, a checkpoint, data. What is returned
has the types that its schema says, and whoever uses it need not ask again.
"""

import gzip
import json
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Annotated, Any, BinaryIO, Required

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
)
from typing_extensions import TypedDict  # pydantic asks for it below Python 3.12

from bench.errors import UserError, printable, short

Object = dict[str, Any]
Shape = TypeAdapter[Any]  # of an object: what `shape` and `TypeAdapter` make

LARGEST = 2**30  # bytes of a file that is read as a whole; a million samples take 10 MB
DOCUMENT = 2**26  # bytes of a JSON or YAML document


def number(low: float, high: float) -> Any:
    """The type of a whole number or float within bounds, as it is."""

    def check(value: Any) -> Any:
        known = isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool))
        if not known or not low <= value <= high:
            raise ValueError(f"it should be a number from {low:g} to {high:g}")
        return value

    told = WithJsonSchema({"type": "number", "minimum": low, "maximum": high})
    return Annotated[Any, AfterValidator(check), told]


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return printable(value)
    if not isinstance(value, int | float | None) or not -1e30 < (value or 0) < 1e30:
        raise ValueError("it should be a text, a number, true, false or null")
    return value


# Parts of schemas. Text is what may be shown: see printable.
Text = Annotated[StrictStr, Field(max_length=1_000_000), AfterValidator(printable)]
Count = Annotated[StrictInt, Field(ge=0, le=2**53)]  # beyond, a float would not hold it
Flag = StrictBool
Number: Any = number(-1e30, 1e30)
Plain: Any = Annotated[  # a single value, whichever
    Any, AfterValidator(_plain), WithJsonSchema({"type": ["string", "number", "boolean", "null"]})
]

_typed_dict: Any = TypedDict


def fields_of(fields: dict[str, Any], needed: Iterable[str] = ()) -> Any:
    """A type of objects with these fields. Each may be missing or null, but for those that are needed; other keys are
    kept as they are."""
    needed = set(needed)
    kinds = {k: Required[v] if k in needed else v | None for k, v in fields.items()}
    found = _typed_dict("Fields", kinds, total=False)
    found.__pydantic_config__ = ConfigDict(extra="allow")
    return found


def shape_of(fields: dict[str, Any], needed: Iterable[str] = (), *checks: Callable[[Object], Object]) -> Shape:
    """The schema of such objects. checks: further ones, each raises ValueError or returns the object."""
    kind = fields_of(fields, needed)
    for check in checks:
        kind = Annotated[kind, AfterValidator(check)]
    return TypeAdapter(kind)


_KINDS = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe"}


def is_there(question: Callable[[], bool]) -> bool:
    """Path.is_file or is_dir of a name that people typed: one that cannot be a name is not there."""
    try:
        return question()
    except (OSError, ValueError):
        return False


def open_plain(path: Path, most: int = LARGEST) -> BinaryIO:
    """A plain file of at most `most` bytes, to be read. Raises UserError for anything else, and does not wait at a
    named pipe."""
    try:
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as e:
        raise UserError(f"{path}: cannot be read ({getattr(e, 'strerror', None) or e})") from None
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        os.close(fd)
        raise UserError(
            f"{path}: this is {_KINDS.get(stat.S_IFMT(found.st_mode), 'a device')}. A plain file is needed."
        )
    if found.st_size > most:
        os.close(fd)
        raise UserError(f"{path}: longer than {most} bytes, which is the most that is read of such a file.")
    return open(fd, "rb")


def read_bytes(path: Path, most: int = LARGEST) -> bytes:
    """The content of a plain file of at most `most` bytes. Raises UserError for anything else."""
    with open_plain(path, most) as file:
        try:
            data = file.read(most + 1)
        except OSError as e:
            raise UserError(f"{path}: cannot be read ({e.strerror})") from None
    if len(data) > most:
        raise UserError(f"{path}: longer than {most} bytes, which is the most that is read of such a file.")
    return data


def read_text(path: Path, most: int = DOCUMENT) -> str:
    """The text of a UTF-8 file. Raises UserError."""
    try:
        return read_bytes(path, most).decode("utf-8")
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: not UTF-8 text (byte {e.start})") from None


def read_json(path: Path, advice: str = "Copy it again, or remove it.") -> Any:
    """The value of a JSON file, unchecked. Raises UserError."""
    return parse_json(read_text(path), str(path), advice)


def parse_json(text: str | bytes, where: str, advice: str) -> Any:
    """The value of a JSON text; `where` names it. Raises UserError."""
    try:
        return json.loads(text)
    except RecursionError:
        raise UserError(f"{where}: nested too deeply. {advice}") from None
    except ValueError as e:  # no JSON, no UTF-8, a number of thousands of digits
        raise UserError(f"{where}: not valid JSON ({e}). {advice}") from None


def read_object(path: Path, shape: Shape, advice: str = "Copy it again, or remove it.") -> Object:
    """The object of a JSON file as `shape` has it. Raises UserError with the field."""
    return checked(read_json(path, advice), shape, str(path), advice)


def checked(value: Any, shape: Shape, where: str, advice: str = "") -> Object:
    """A JSON value as `shape` has it, without conversions between types. Raises UserError with the field, what was
    found and what would be valid."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: found a {type(value).__name__} where one JSON object should be. {advice}".rstrip())
    try:
        found: Object = shape.validate_python(value, strict=True)
        return found
    except ValidationError as e:
        first = e.errors(include_url=False, include_context=False)[0]
    except (RecursionError, OverflowError) as e:
        raise UserError(f"{where}: a value cannot be read ({e}). {advice}".rstrip()) from None
    field = ".".join(str(part) for part in first["loc"])
    said = first["msg"].removeprefix("Value error, ")
    told = "" if first["type"] == "missing" or not field else f" is {short(first['input'])}"
    raise UserError(f"{where}: {field}{told}: {said}. {advice}".replace(": : ", ": ").rstrip())


@dataclass(frozen=True, slots=True)
class JsonLine:
    """A line of a file of JSON lines, without its line feed, and the object that it is; None for a torn last one."""

    number: int
    at: int  # byte of the file at which it begins
    raw: bytes
    value: Object | None


def read_json_lines(path: Path, shape: Shape | None = None) -> tuple[list[Object], int | None]:
    """The objects of a file of JSON lines, and the byte at which a torn last line begins; (nothing, None) without file.

    A name that ends in .gz is unpacked first. A line that a kill tore off has no line feed at its end, and is left out.
    Raises UserError with the line's number for any other line that is no object of that shape, for nobody's kill did
    that.
    """
    if not os.path.lexists(path):
        return [], None
    objects: list[Object] = []
    with open_lines(path) as file:
        for line in json_lines(file, path, shape):
            if line.value is None:
                return objects, line.at
            objects.append(line.value)
    return objects, None


def open_lines(path: Path) -> BinaryIO:
    """A file of lines to be read from its begin; one whose name ends in .gz is unpacked, into a file that nobody else
    sees. Raises UserError."""
    file = open_plain(path)
    if path.suffix != ".gz":
        return file
    unpacked = TemporaryFile()  # noqa: SIM115  # whoever reads it closes it
    try:
        with file, gzip.open(file) as packed:
            while part := packed.read(2**20):
                if unpacked.write(part) and unpacked.tell() > LARGEST:
                    raise UserError(
                        f"{path}: unpacked it is longer than {LARGEST} bytes, the most that is read of such a file."
                    )
    except (OSError, EOFError, zlib.error) as e:
        unpacked.close()
        raise UserError(f"{path}: the file cannot be unpacked ({e}). Copy it again, or remove it.") from None
    unpacked.seek(0)
    return unpacked


def json_lines(file: BinaryIO, path: Path, shape: Shape | None = None) -> Iterator[JsonLine]:
    """The lines of a file that are not empty, one after the other; `path` names it. A torn last one comes with no
    value. Raises UserError for any other line that is no object of that shape."""
    advice = "Only the last line may be torn. Mend the line, or remove it."
    kind, at, number = shape or ANY_OBJECT, 0, 0
    try:
        for number, line in enumerate(file, 1):
            raw = line.strip()
            if raw and not line.endswith(b"\n"):
                yield JsonLine(number, at, raw, None)
            elif raw:
                begin = at + len(line) - len(line.lstrip())
                yield JsonLine(number, begin, raw, json_object(raw, kind, f"{path}:{number}: damaged line", advice))
            at += len(line)
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror}; line {number + 1})") from None


def json_object(raw: bytes, shape: Shape, where: str, advice: str = "") -> Object:
    """The object that a JSON text is, as `checked` has it. Raises UserError."""
    try:
        found: Object = shape.validate_json(raw, strict=True)  # in one go, which takes half as long
        return found
    except (ValueError, RecursionError, OverflowError):  # whoever says why also takes what only Python calls JSON
        return checked(parse_json(raw, where, advice), shape, where, advice)


ANY_OBJECT: Shape = TypeAdapter(Object)
