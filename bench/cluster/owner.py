"""Who attends to a folder: one process at a time submits into it and resubmits, wherever it runs.

A file lock would have to be kept by the network file system, and many do not. So the owner is a file that is made only
where there is none, which is one step also over NFS, and that its owner touches while it lives.
"""

import getpass
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.errors import UserError
from bench.reading import Count, Object, Text, read_object, shape_of

OWNER = ".attended"
SILENT_S = 180.0  # after which an owner is taken for dead; it touches its file every few seconds

_SHAPE = shape_of({"host": Text, "pid": Count, "user": Text}, ("host", "pid", "user"))


class Attended(Exception):
    """Somebody else attends to the folder; `who`, for people."""

    def __init__(self, who: str) -> None:
        super().__init__(who)
        self.who = who


def user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without that user in its passwd
        return str(os.getuid())


class Owner:
    """This process, attending to a folder."""

    def __init__(self, path: Path, told: bytes) -> None:
        """told: what it has put into the file, and nobody else has."""
        self._path, self._told = path, told

    def beat(self) -> None:
        """Says that it still does. Raises Attended where it was taken for dead, as after it was stopped for long."""
        with suppress(OSError):  # a file server that does not answer for once
            if not self.holds():
                raise Attended(_who(self._path))
            os.utime(self._path)

    def holds(self) -> bool:
        """Whether the file is still its own. Raises OSError."""
        try:
            return self._path.read_bytes() == self._told
        except FileNotFoundError:
            return False


@contextmanager
def attend(folder: Path) -> Iterator[Owner]:
    """Attends to a folder, which is there, as the only process. Raises Attended where another one does, and UserError
    where the folder cannot be written."""
    mark = secrets.token_hex(8)
    draft = folder / f"{OWNER}-{mark}"
    told = {"host": socket.gethostname(), "pid": os.getpid(), "user": user(), "mark": mark}
    text = json.dumps(told).encode()
    owner = Owner(folder / OWNER, text)
    try:
        draft.write_bytes(text)
        try:
            _take(draft, folder / OWNER)
        finally:
            draft.unlink()
    except OSError as e:
        raise UserError(f"{folder}: {e.strerror}. Pass a folder of your own.") from None
    try:
        yield owner
    finally:
        with suppress(OSError):
            if owner.holds():
                (folder / OWNER).unlink()


def _take(draft: Path, path: Path) -> None:
    while True:
        try:
            os.link(draft, path)
            return
        except FileExistsError:
            if draft.stat().st_nlink > 1:  # it was made: NFS lost the answer, and refused the second try
                return
        with suppress(FileNotFoundError):  # it went meanwhile
            found = path.read_bytes()
            if not _dead(path, draft):
                raise Attended(_who(path))
            # Moved away rather than removed: of two who find it dead, the slower one moves what the faster one has put
            # there, and puts it back.
            old = draft.with_name(draft.name + "-old")
            path.rename(old)
            if old.read_bytes() != found:
                with suppress(FileExistsError):
                    os.link(old, path)
            old.unlink()


def _dead(path: Path, draft: Path) -> bool:
    # Both times are the file server's. Of this host too: its number may be another process's by now.
    silent = draft.stat().st_mtime - path.stat().st_mtime > SILENT_S
    told = _read(path)
    return silent or bool(told and told["host"] == socket.gethostname() and not _runs(told["pid"]))


def _runs(pid: int) -> bool:
    """Not by /proc, where a login node may hide the processes of others."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True


def _read(path: Path) -> Object | None:
    try:
        return read_object(path, _SHAPE)
    except UserError:
        return None


def _who(path: Path) -> str:
    told = _read(path)
    return f"{told['user']}, process {told['pid']} on {told['host']}," if told else "somebody"
