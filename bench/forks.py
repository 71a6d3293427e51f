"""Work of many parts on several cores, by forks of this process: they know what it knows, and are told nothing."""

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from bench.process import ENDING

Part = TypeVar("Part")
Done = TypeVar("Done")
MOST = 4  # forks, for the sake of memory and of others on a login node


def mapped(work: Callable[[Part], Done], parts: Sequence[Part], worth: bool) -> Generator[Done, None, None]:
    """What `work` makes of each part, in their order. Close it where it is not read to the end.

    worth: whether forks pay; without them, and where forking is not safe, all is done here. `work` returns what can be
    pickled; what it changes is lost in a fork. A part at which it raises, or its fork dies, is done here again, so that
    errors are those of one process.
    """
    forks = min(_cores(), MOST, len(parts)) if worth else 1
    if forks < 2:
        yield from map(work, parts)
        return
    context = get_context("fork")
    ends, workers = [], []
    try:
        for first in range(forks):
            end, inside = context.Pipe(duplex=False)
            worker = context.Process(target=_work, args=(work, parts[first::forks], end, inside), daemon=True)
            worker.start()
            inside.close()
            ends.append(end)
            workers.append(worker)
        for i, part in enumerate(parts):
            try:
                done = ends[i % forks].recv()
            except (EOFError, OSError):
                done = work(part)
            yield done
    finally:
        for worker in workers:
            worker.kill()
            worker.join()


def _cores() -> int:
    """Those that forks may have: one where a lock that another thread holds would stay locked in them."""
    if sys.platform != "linux" or threading.active_count() > 1 or sys.modules.get("torch"):
        return 1
    return len(os.sched_getaffinity(0))


def _work(work: Callable[[Any], Any], parts: Sequence[Any], end: Connection, inside: Connection) -> None:
    """In a fork, which ends where nobody reads what it sends: its parent was killed."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN if number == signal.SIGINT else signal.SIG_DFL)
    gc.freeze()  # to look through what the parent has takes time, and copies it
    end.close()  # else it would itself be who reads
    with suppress(Exception):
        for part in parts:
            inside.send(work(part))
