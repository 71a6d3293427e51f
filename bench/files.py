"""Files that survive a kill and a full disk: JSON lines, whole files, and what moves aside to earlier/."""

import errno
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Annotated, BinaryIO, TextIO

from pydantic import Field

from bench.errors import UserError
from bench.reading import Object, read_object, shape_of

LOCK = ".lock"  # in a folder that one process at a time may write into
EARLIER = "earlier"
MOVING = ".moving"  # in earlier/ while a move is under way: what moves, and where to

_Name = Annotated[str, Field(pattern=r"^[^/]*[^/.][^/]*$")]  # of something in the folder itself
_NOTE = shape_of({"into": _Name, "names": list[_Name]}, ("into", "names"))

# Where the system lacks one of these, it lacks what it is for.
_NO_LINK, _NO_WAIT = getattr(os, "O_NOFOLLOW", 0), getattr(os, "O_NONBLOCK", 0)


def append_json_lines(path: Path, objects: Iterable[Object]) -> None:
    """Appends one line for each object; on disk when this returns. Raises OSError, after undoing what was half
    written; and for anything but a plain file, since a link leads elsewhere and a pipe keeps nothing."""
    data = "".join(json.dumps(o, allow_nan=False) + "\n" for o in objects).encode()
    odd = OSError(errno.EINVAL, "this is no plain file, as is needed here", str(path))
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _NO_LINK | _NO_WAIT, 0o644)
    except OSError as e:
        if e.errno not in (errno.ELOOP, errno.ENXIO):
            raise
        raise odd from None
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise odd
        try:
            written = 0
            while written < len(data):
                written += os.write(fd, data[written:])
            os.fsync(fd)
        except OSError as e:
            os.ftruncate(fd, found.st_size)
            raise OSError(e.errno, e.strerror, str(path)) from None
    finally:
        os.close(fd)


def replace_file(path: Path, content: str | bytes) -> None:
    """Writes a whole file, text as UTF-8, or leaves the old one. Raises OSError."""
    with replacing(path) as (draft,):
        draft.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)


@contextmanager
def replacing(*paths: Path) -> Iterator[tuple[BinaryIO, ...]]:
    """A file for each path, to be written in whatever parts: when all of them are on disk they take their places, in
    this order. Where something is raised before, none of them does. Raises OSError."""
    drafts = [path.with_name(path.name + ".new") for path in paths]
    try:
        with ExitStack() as files:
            opened = []
            for draft in drafts:
                draft.unlink(missing_ok=True)  # what a kill left, or a link that somebody planted
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINK
                opened.append(files.enter_context(open(os.open(draft, flags, 0o666), "wb")))
            yield tuple(opened)
            for file in opened:
                file.flush()
                os.fsync(file.fileno())
        for draft, path in zip(drafts, paths, strict=True):
            draft.replace(path)
    except BaseException:
        for draft in drafts:
            draft.unlink(missing_ok=True)
        raise


def look_anew(folder: Path) -> None:
    """Has a network file system ask its server what is in a folder, which it else may know from a minute ago."""
    with suppress(OSError):
        os.close(os.open(folder, os.O_RDONLY))


def cache_folder(name: str) -> Path | None:
    """The folder `name` for what can be made again: in $LORABENCH_CACHE, else in lorabench/ of $XDG_CACHE_HOME or of
    ~/.cache. None where it cannot be written, and then nothing is kept."""
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
        folder = Path(os.environ.get("LORABENCH_CACHE") or Path(home) / "lorabench") / name
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError, ValueError):
        return None
    return folder if os.access(folder, os.W_OK) else None


def between_marks(text: str, begin: str, end: str, new: str) -> str | None:
    """The text with `new` from after the first `begin` to the next `end`; None where it has not both."""
    before, found, rest = text.partition(begin)
    _, ends, after = rest.partition(end)
    return f"{before}{begin}{new}{end}{after}" if found and ends else None


def check_named(flag: str, path: Path) -> None:
    """Raises UserError where `write_named` could not write to a path that a flag names."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        folder = Path(os.path.realpath(path)).parent
        if not folder.is_dir():
            raise UserError(f"{flag} {path}: no such folder: {folder}") from None
    except OSError as e:
        raise UserError(f"{flag} {path}: {e.strerror}") from None
    else:
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFBLK: "a disk", stat.S_IFSOCK: "a socket"}
        if kind := kinds.get(stat.S_IFMT(mode)):
            raise UserError(f"{flag} {path}: this is {kind}. Pass a file, a pipe, or a device as /dev/stdout is one.")


def stream_of(path: Path) -> TextIO | None:
    """Standard output or error where a path names it, as /dev/stdout does."""
    with suppress(OSError):
        there = path.stat()
        for number, stream in ((1, sys.stdout), (2, sys.stderr)):
            if os.path.samestat(there, os.fstat(number)):
                return stream
    return None


def write_named(path: Path, text: str) -> None:
    """Writes to what a person has named: a plain file as a whole, and where there is a link, the one that it leads to;
    into a pipe or a device. Raises OSError."""
    if stream := stream_of(path):
        stream.write(text)
        stream.flush()
        return
    if path.is_file() or not path.exists():
        replace_file(Path(os.path.realpath(path)), text)
        return
    try:
        fd = os.open(path, os.O_WRONLY | _NO_WAIT | getattr(os, "O_NOCTTY", 0))
    except OSError as e:
        if e.errno != errno.ENXIO:
            raise
        raise OSError(e.errno, "nobody reads this pipe", str(path)) from None
    os.set_blocking(fd, True)
    with open(fd, "wb") as f:
        f.write(text.encode("utf-8", "backslashreplace"))


def set_aside(folder: Path, name: str, paths: Iterable[Path]) -> Path:
    """Moves `paths`, in their order, from `folder` into `folder`/earlier/<name>, and returns that folder.

    Whoever calls it holds the folder (see bench.folder), whose lock stays. Nothing that is there already is touched:
    where one of the names is taken, <name>-2, <name>-3 ... is used. A move that is cut off is completed by the next
    call, or by `complete_move`.
    """
    complete_move(folder)
    names = [path.name for path in paths if path.name != LOCK]
    aside = _place_for(names, folder / EARLIER, name)
    replace_file(folder / EARLIER / MOVING, json.dumps({"into": aside.name, "names": names}) + "\n")
    complete_move(folder)
    return aside


def move_was_cut_off(folder: Path) -> bool:
    """Whether a part of what is in the folder should be in earlier/ already."""
    return (folder / EARLIER / MOVING).is_file()


def complete_move(folder: Path) -> None:
    """Moves the rest of what `set_aside` was to move when it was cut off; nothing where it never was. Raises UserError
    for a note of it that nobody of us has written."""
    note = folder / EARLIER / MOVING
    if not move_was_cut_off(folder):
        return
    told = read_object(note, _NOTE, f"It says what moves into {EARLIER}/. Remove it.")
    for path, there in ((folder / x, folder / EARLIER / told["into"] / x) for x in told["names"]):
        if os.path.lexists(path) and not os.path.lexists(there):
            path.rename(there)
    note.unlink()


def _place_for(names: list[str], earlier: Path, name: str) -> Path:
    """A folder in `earlier` where none of the names is taken: a new one, or one that a move has left half full."""
    earlier.mkdir(exist_ok=True)
    for number in count(1):
        aside = earlier / (name if number == 1 else f"{name}-{number}")
        try:
            aside.mkdir()
        except FileExistsError:
            if aside.is_symlink() or not aside.is_dir() or any(os.path.lexists(aside / x) for x in names):
                continue
        return aside
    raise AssertionError


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
