"""Locks between processes, by filelock: the system frees those of a process that ends, however it ends.

A lock file may stand in a folder that strangers share. So no link there is followed, nothing but a plain file is
locked, and every user may lock it.
"""

import os
import stat
from collections.abc import Callable
from errno import EINVAL
from pathlib import Path

from filelock import FileLock, Timeout

Locks = dict[tuple[int, int], FileLock]  # those that are held, by device and inode of the file

POLL_S = 0.2  # between two tries of a process that waits


class Taken(Exception):
    """Another process holds the lock; `process` is its id, or 'unknown'."""

    def __init__(self, process: str) -> None:
        super().__init__(process)
        self.process = process


def take(path: Path, held: Locks, waiting: Callable[[str], None] | None = None) -> None:
    """Takes the lock of a file, which is made where it is missing, and puts it into `held`. A file that is in there
    already, by whatever name, is left at that.

    waiting: is told the process that has the lock, before this one waits for it. Raises Taken without `waiting`;
    OSError where there is no such file to lock, as where a user who lets nobody write has left it.
    """
    if os.path.lexists(path):
        found = os.lstat(path)
        if (found.st_dev, found.st_ino) in held:
            return
        if not stat.S_ISREG(found.st_mode):
            what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a plain file"
            raise OSError(EINVAL, f"it is {what}", str(path))
    lock = FileLock(path, mode=0o666)  # whatever the umask of the first user; filelock opens without following links
    try:
        lock.acquire(blocking=False)
    except Timeout:
        process = _holder(path)
        if waiting is None:
            raise Taken(process) from None
        waiting(process)
        lock.acquire(poll_interval=POLL_S)
    found = os.lstat(path)
    held[found.st_dev, found.st_ino] = lock


def release(held: Locks) -> None:
    """Frees them all."""
    for lock in held.values():
        lock.release()
    held.clear()


def _holder(path: Path) -> str:
    """The process that has the flock of a file, as Linux tells it; 'unknown' elsewhere, and for one in another
    container."""
    try:
        found = os.lstat(path)
        lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return "unknown"
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    mine = [w for w in lines if len(w) > 5 and w[1] == "FLOCK" and w[5].rpartition(":")[2] == str(found.st_ino)]
    exact = [w for w in mine if w[5] == device]  # some file systems tell stat another device than the kernel's
    processes = {w[4] for w in exact or mine}
    return processes.pop() if len(processes) == 1 and int(min(processes)) > 0 else "unknown"
