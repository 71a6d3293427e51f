"""How busy this machine is with other work: a time measured beside it is not the machine's."""

import time
from collections.abc import Callable
from typing import Any

import psutil

from bench.terminal import duration

WINDOW_S = 1.0
QUIET = 0.15  # cores that other work may keep busy on a machine at rest: daemons and this command itself
QUIET_WINDOWS = 3  # in a row: a neighbour that pauses is not gone


def busy_cores(
    seconds: float = WINDOW_S,
    times: Callable[[], Any] = psutil.cpu_times,
    sleep: Callable[[float], None] = time.sleep,
) -> float:
    """Cores that were busy over the next `seconds`, with what a hypervisor took away: 0 on a machine at rest.

    times: seconds since boot by kind of work, summed over cores, as psutil.cpu_times has them.
    """
    before = times()
    sleep(seconds)
    spent = {kind: b - a for kind, a, b in zip(before._fields, before, times(), strict=True)}
    for kind in ("guest", "guest_nice"):  # Linux counts them in user and nice as well
        spent.pop(kind, None)
    whole = sum(spent.values())
    idle = spent.get("idle", 0.0) + spent.get("iowait", 0.0)
    return (whole - idle) / whole * _cores() if whole > 0 else 0.0


def _cores() -> int:
    return psutil.cpu_count() or 1


def sentence(busy: float) -> str:
    """'2 cores, 1.3 busy with other work'."""
    return f"{_cores()} cores, {busy:.1f} busy with other work"


def wait_quiet(limit_s: float, say: Callable[[str], None], look: Callable[[], float] = busy_cores) -> bool:
    """Waits until the machine is at rest, for `limit_s` seconds at most; whether it came to rest.

    look: takes WINDOW_S seconds, and says how many cores were busy.
    """
    quiet = waited = 0.0
    while quiet < QUIET_WINDOWS:
        if waited >= limit_s:
            say(f"the machine did not come to rest within {duration(limit_s)}: {sentence(busy)}; measuring all the same")
            return False
        busy = look()
        if not waited and busy > QUIET:
            say(f"{sentence(busy)}; waiting for rest, {duration(limit_s)} at most")
        waited += WINDOW_S
        quiet = quiet + 1 if busy <= QUIET else 0
    return True
