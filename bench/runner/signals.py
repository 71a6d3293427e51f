"""Signals between a command and the processes it starts: SIGTERM is taken as Ctrl-C, and nobody outlives his parent."""

import ctypes
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def terminate_as_interrupt() -> Iterator[list[int]]:
    """SIGTERM raises KeyboardInterrupt, as Ctrl-C does. The list holds the signal's number once it came."""
    came: list[int] = []

    def handler(number: int, _frame: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def end_with_parent() -> Callable[[], None] | None:
    """For a child to call before it starts: where this process dies without a word, the kernel (Linux) sends the child
    SIGTERM, which it takes as Ctrl-C."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)  # opened before the fork
    PR_SET_PDEATHSIG = 1  # linux/prctl.h
    return lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
