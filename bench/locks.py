"""Locks between processes, by flock(2): the system frees those of a process that ends, however it ends.

A lock file may stand in a folder that strangers share. So no link there is followed, nothing but a plain file is
locked, nothing is written into it, and every user may lock it.
"""

import fcntl
import os
import stat
from collections.abc import Callable
from errno import EINVAL, ELOOP
from pathlib import Path

Identity = tuple[int, int]  # device and inode


class Taken(Exception):
    """Another process holds the lock; `process` is its id, or 'unknown'."""

    def __init__(self, process: str) -> None:
        super().__init__(process)
        self.process = process


def take(path: Path, held: dict[Identity, int], waiting: Callable[[str], None] | None = None) -> None:
    """Takes the lock of a file, which is made where it is missing, and puts its descriptor into `held`; closing that
    frees the lock. A file that is in `held` already, by whatever name, is left at that.

    waiting: is told the process that has the lock, before this one waits for it. Raises Taken without `waiting`;
    OSError where there is no such file to lock.
    """
    while True:
        fd = _open(path)
        try:
            if _identity(os.fstat(fd)) in held:
                os.close(fd)
                return
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                process = _holder(os.fstat(fd))
                if waiting is None:
                    raise Taken(process) from None
                waiting(process)
                fcntl.flock(fd, fcntl.LOCK_EX)
            if _stands_at(path, fd):
                held[_identity(os.fstat(fd))] = fd
                return
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # removed while this process waited: who comes now makes a new one


def _open(path: Path) -> int:
    """A plain file at `path`, opened without waiting. Raises OSError for a link, a folder, a FIFO or a device."""
    flags = os.O_NOFOLLOW | os.O_NONBLOCK
    umask = os.umask(0)  # the file is for every user, whatever the umask of the first
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | flags, 0o666)
    except OSError as e:  # there already, or in a folder that is not ours to write into
        fd = _open_existing(path, flags, e)
    finally:
        os.umask(umask)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(EINVAL, "it is not a plain file", str(path))
    return fd


def _open_existing(path: Path, flags: int, why: OSError) -> int:
    """Without O_CREAT, which Linux refuses for another user's file in a sticky folder (fs.protected_regular); and for
    reading where that user lets nobody write, since that is enough for flock."""
    for mode in (os.O_RDWR, os.O_RDONLY):
        try:
            return os.open(path, mode | flags)
        except FileNotFoundError:
            raise why from None
        except OSError as e:
            if e.errno == ELOOP:
                raise OSError(ELOOP, "it is a symbolic link", str(path)) from None
            last = e
    raise last


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino


def _stands_at(path: Path, fd: int) -> bool:
    try:
        return _identity(os.lstat(path)) == _identity(os.fstat(fd))
    except FileNotFoundError:
        return False


def _holder(found: os.stat_result) -> str:
    """The process that has the flock of a file, as Linux tells it; 'unknown' elsewhere, and for one in another
    container."""
    try:
        lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return "unknown"
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    mine = [w for w in lines if len(w) > 5 and w[1] == "FLOCK" and w[5].rpartition(":")[2] == str(found.st_ino)]
    exact = [w for w in mine if w[5] == device]  # some file systems tell stat another device than the kernel's
    processes = {w[4] for w in exact or mine}
    return processes.pop() if len(processes) == 1 and int(min(processes)) > 0 else "unknown"
