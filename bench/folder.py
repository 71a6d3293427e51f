"""The folder that a command writes into: whether it can be, and one process at a time in it."""

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.errors import UserError
from bench.files import LOCK
from bench.locks import Locks, release, take


def usable(flag: str, folder: Path) -> Path:
    """The folder itself, which is there and can be written, or can be made. Changes nothing. Raises UserError."""
    advice = "Pass a folder, new or from an earlier run."
    there, found = folder, None
    while found is None:
        try:
            found = there.stat()
        except (FileNotFoundError, NotADirectoryError) as e:
            if there.is_symlink():
                raise UserError(f"{flag} {folder}: {there} is a link to nowhere. {advice}") from None
            if there == there.parent:
                raise UserError(f"{flag} {folder}: {e.strerror}. {advice}") from None
            there = there.parent
        except OSError as e:
            raise UserError(f"{flag} {folder}: {e.strerror}. {advice}") from None
    if not stat.S_ISDIR(found.st_mode):
        what = "a file" if stat.S_ISREG(found.st_mode) else "no folder"
        raise UserError(f"{flag} {folder}: {'this' if there == folder else there} is {what}. {advice}")
    if folder.resolve() == Path(folder.resolve().anchor):
        raise UserError(f"{flag} {folder}: this is the root of the file system. Pass a folder below it.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise UserError(f"{flag} {folder}: nothing can be written into {there}. Pass a folder of your own.")
    return folder


@contextmanager
def hold(folder: Path, waiting: Callable[[str], None] | None = None) -> Iterator[None]:
    """Keeps a folder, which is made where it is missing, to this process.

    waiting: is told the process that has the folder, before this one waits for it. Raises Taken without `waiting`;
    UserError where the folder cannot be made or locked. Where that or what happens within ends in an exception, and
    nothing else was put into the folder, it goes again as far as it was made here, with its lock file.
    """
    folder = folder.absolute()
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    before = _names(folder)
    held: Locks = {}
    try:
        try:
            _take(folder, held, waiting)
        except OSError as e:
            raise UserError(f"--out {folder}: {e.filename or folder}: {e.strerror}. Pass another folder.") from None
        yield
    except BaseException:
        with suppress(OSError):
            if held and _names(folder) - before == {LOCK}:
                (folder / LOCK).unlink()
            for path in made:
                path.rmdir()
        raise
    finally:
        release(held)


def _take(folder: Path, held: Locks, waiting: Callable[[str], None] | None) -> None:
    while not held:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):  # whoever had the folder has removed it again
            take(folder / LOCK, held, waiting)


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()
