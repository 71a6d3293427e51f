"""Files that survive a kill and a full disk: JSON lines, whole files, and what moves aside to earlier/."""

import gzip
import json
import os
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bench.errors import UserError

EARLIER = "earlier"

Object = dict[str, Any]


def read_json_lines(path: Path, check: Callable[[Object], object] | None = None) -> tuple[list[Object], int | None]:
    """The objects of a file of JSON lines, and the byte at which a torn last line begins; (nothing, None) without file.

    A name that ends in .gz is unpacked first. A line that a kill tore off has no line feed at its end, and is left out.
    check: raises ValueError, KeyError or TypeError for an object that does not belong there. Raises UserError with the
    line's number for any other line that is no such object, for nobody's kill did that.
    """
    if not path.exists():
        return [], None
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as e:
        raise UserError(f"{path}: the file cannot be unpacked ({e}). Copy it again, or remove it.") from None
    objects: list[Object] = []
    whole = data.rfind(b"\n") + 1
    for number, line in enumerate(data[:whole].split(b"\n"), 1):
        if line.strip():
            try:
                value = json.loads(line)
                if not isinstance(value, dict):
                    raise TypeError
                if check:
                    check(value)
            except (ValueError, KeyError, TypeError):
                raise UserError(
                    f"{path}:{number}: damaged line. Each line should be one JSON object; only the last may be torn."
                    " Mend the line, or remove it."
                ) from None
            objects.append(value)
    return objects, whole if data[whole:].strip() else None


def append_json_lines(path: Path, objects: Iterable[Object]) -> None:
    """Appends one line for each object; on disk when this returns. Raises OSError, after undoing what was half
    written."""
    data = "".join(json.dumps(o, allow_nan=False) + "\n" for o in objects).encode()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        size = os.fstat(fd).st_size
        try:
            written = 0
            while written < len(data):
                written += os.write(fd, data[written:])
            os.fsync(fd)
        except OSError as e:
            os.ftruncate(fd, size)
            raise OSError(e.errno, e.strerror, str(path)) from None
    finally:
        os.close(fd)


def replace_file(path: Path, content: str | bytes) -> None:
    """Writes a whole file, text as UTF-8, or leaves the old one. Raises OSError."""
    draft = path.with_name(path.name + ".new")
    try:
        with open(draft, "wb") as f:
            f.write(content.encode() if isinstance(content, str) else content)
            f.flush()
            os.fsync(f.fileno())
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def set_aside(folder: Path, name: str, paths: Iterable[Path]) -> Path:
    """Moves `paths`, in their order, into `folder`/earlier/<name>, and returns that folder.

    Nothing that is there already is overwritten: where one of the names is taken, <name>-2, <name>-3 ... is used. So a
    move that was cut off is completed by the next one.
    """
    moved = list(paths)
    number, aside = 1, folder / EARLIER / name
    while any((aside / path.name).exists() for path in moved):
        number += 1
        aside = folder / EARLIER / f"{name}-{number}"
    aside.mkdir(parents=True, exist_ok=True)
    for path in moved:
        path.replace(aside / path.name)
    return aside
