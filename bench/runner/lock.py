"""One run at a time on a device: a second one waits, and says for whom."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from bench.devices import Device


def lock_path(device: Device) -> Path:
    """The lock file of a device, the same for every checkout and user of this machine."""
    return Path(tempfile.gettempdir()) / f"lorabench-{device.uuid}.lock"


@contextmanager
def only_run_on(device: Device, say: Callable[[str], None], poll_s: float = 0.5) -> Iterator[None]:
    """Holds the device's lock; waits for whoever has it. The system drops the lock of a process that dies."""
    path = lock_path(device)
    holder = path.with_suffix(".pid")  # beside the lock file, which older versions of filelock empty
    lock = FileLock(path, mode=0o666)
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        process = holder.read_text().strip() if holder.exists() else "unknown"
        say(f"another run (process {process}) is measuring on {device.name}; waiting until it is done")
        held = lock.acquire(poll_interval=poll_s)
    with held:
        with contextlib.suppress(OSError):  # another user's file, left by a run that was killed
            holder.write_text(f"{os.getpid()}\n")
            holder.chmod(0o666)
        yield
