"""One run at a time on a device: a second one waits, and says for whom."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.devices import Device
from bench.errors import UserError
from bench.locks import Locks, release, take

VARIABLE = "LORABENCH_LOCKS"  # a folder to hold the locks instead

# All of those that are there and can be written, in this order: a Slurm job or a container often has one of them to
# itself, and seldom all. Not what TMPDIR says, which differs from shell to shell.
PLACES = ("/dev/shm", "/run/lock", "/tmp")


def lock_paths(device: Device) -> list[Path]:
    """The lock files of a device, the same for every checkout and user of this machine, in the order in which they are
    taken. Raises UserError for a LORABENCH_LOCKS that is no folder."""
    named = os.environ.get(VARIABLE)
    places = [Path(p) for p in ([named] if named else PLACES)]
    found = [p for p in places if os.path.isdir(p) and os.access(p, os.W_OK | os.X_OK)]  # noqa: PTH112  # is_dir() raises
    if named and not found:
        raise UserError(f"{VARIABLE} {named}: no folder that can be written. Name one, or unset the variable.")
    return [place / f"lorabench-{device.uuid}.lock" for place in found or [Path(tempfile.gettempdir())]]


@contextmanager
def only_run_on(device: Device, say: Callable[[str], None]) -> Iterator[None]:
    """Holds the locks of a device; waits for whoever has one. The system drops the locks of a process that dies.

    Raises UserError where none of them can be had, for a stranger may have put something else under their names.
    """
    held: Locks = {}
    told: list[str] = []
    odd: list[str] = []

    def wait(process: str) -> None:
        if process not in told:
            say(f"another run (process {process}) is measuring on {device.name}; waiting until it is done")
            told.append(process)

    try:
        for path in lock_paths(device):
            try:
                take(path, held, wait)
            except OSError as e:
                odd.append(f"{path}: {e.strerror}")
        if not held:
            raise UserError(
                f"{'; '.join(odd)}: so no other run would know of this one. Remove what is there, or name a folder of"
                f" your own by {VARIABLE}."
            )
        for what in odd:
            say(f"{what}; passed over")
        yield
    finally:
        release(held)
