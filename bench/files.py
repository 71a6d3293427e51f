"""Files that survive a kill and a full disk: JSON lines, whole files, and what moves aside to earlier/."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench.errors import UserError

EARLIER = "earlier"

Object = dict[str, Any]


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


def refuse_links(folder: Path) -> None:
    """Raises UserError where a file or folder in `folder` is a symbolic link: whoever wrote into it would write to a
    place of somebody else's choosing. The folder itself may be one."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.is_symlink():
            raise UserError(
                f"{path}: this is a symbolic link, to {path.readlink()}. What is written here must stay here: put the"
                " file itself there, or link the whole folder."
            )
