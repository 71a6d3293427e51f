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
    """This process, attending to a folder. `beat` says that it still does."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def beat(self) -> None:
        with suppress(OSError):
            os.utime(self._path)


@contextmanager
def attend(folder: Path) -> Iterator[Owner]:
    """Attends to a folder, which is there, as the only process. Raises Attended where another one does, and UserError
    where the folder cannot be written."""
    path = folder / OWNER
    draft = folder / f"{OWNER}-{secrets.token_hex(4)}"
    try:
        draft.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "user": user()}) + "\n")
        try:
            _take(draft, path)
        finally:
            draft.unlink()
    except OSError as e:
        raise UserError(f"{folder}: {e.strerror}. Pass a folder of your own.") from None
    try:
        yield Owner(path)
    finally:
        path.unlink(missing_ok=True)


def _take(draft: Path, path: Path) -> None:
    while True:
        try:
            os.link(draft, path)
        except FileExistsError:
            if not _dead(path, draft):
                raise Attended(_who(path)) from None
            # Moved away rather than removed: of two who find it dead, one moves this very file.
            old = draft.with_name(draft.name + "-old")
            with suppress(FileNotFoundError):
                path.rename(old)
                old.unlink()
        else:
            return


def _dead(path: Path, draft: Path) -> bool:
    try:
        told = _read(path)
        if told and told["host"] == socket.gethostname():
            return not Path(f"/proc/{told['pid']}").exists() if Path("/proc/self").exists() else False
        # Both times are the file server's.
        return draft.stat().st_mtime - path.stat().st_mtime > SILENT_S
    except FileNotFoundError:
        return True


def _read(path: Path) -> Object | None:
    try:
        return read_object(path, _SHAPE)
    except UserError:
        return None


def _who(path: Path) -> str:
    told = _read(path)
    return f"{told['user']}, process {told['pid']} on {told['host']}," if told else "somebody"
