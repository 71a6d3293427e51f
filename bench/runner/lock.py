"""One run at a time on a device: a second one waits, and says for whom."""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.devices import Device


def lock_path(device: Device) -> Path:
    """The lock file of a device, the same for every checkout and user of this machine."""
    return Path(tempfile.gettempdir()) / f"lorabench-{device.uuid}.lock"


@contextmanager
def only_run_on(device: Device, say: Callable[[str], None], poll_s: float = 0.5) -> Iterator[None]:
    """Holds the device's lock; waits for whoever has it. The system drops the lock of a process that dies."""
    path = lock_path(device)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        told = False
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    holder = os.pread(fd, 64, 0).decode(errors="replace").strip() or "unknown"
                    say(f"another run (process {holder}) is measuring on {device.name}; waiting until it is done")
                    told = True
                time.sleep(poll_s)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)
