"""Architectures in processes of their own: one that crashes or hangs is a row, and the next one goes on.

The processes are forked from one that has torch, transformers and PEFT imported: a start takes a tenth of a second, not
ten. This one imports none of them.
"""

import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

from .row import Row

LIMIT = 180.0  # seconds for one architecture; the slowest took 40 on one core of a Xeon


def examine_all(names: Sequence[str], jobs: int, done: Callable[[Row], Any], limit: float = LIMIT) -> None:
    """Calls done(row) for every architecture as its row is there. KeyboardInterrupt ends the processes and passes."""
    context = _context()
    stop = threading.Event()
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(_examined, name, context, limit, stop) for name in names]
        try:
            for future in as_completed(futures):
                done(future.result())
        except BaseException:
            stop.set()
            for future in futures:
                future.cancel()
            raise


def whole_run() -> list[str]:
    """The architectures of a run without names."""
    return _answered("names")


def unknown(name: str) -> str | None:
    """What is wrong with a name that a person gave; None where nothing is."""
    return _answered("unknown", name)


def _context() -> Any:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # jobs share the cores
    os.environ.setdefault("USE_HUB_KERNELS", "NO")  # none of the Hub's code in transformers' models
    context: Any = get_context("forkserver")
    context.set_forkserver_preload([f"{__package__}.examine"])
    return context


def _answered(question: str, *arguments: str) -> Any:
    """What a function of catalogue.py returns, from a process that has transformers."""
    context = _context()
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sending, question, *arguments), daemon=True)
    process.start()
    sending.close()
    try:
        return receiving.recv()
    except EOFError as error:
        raise ImportError("transformers or PEFT cannot be imported; the error stands above") from error
    finally:
        process.join()


def _answer(connection: Connection, question: str, *arguments: str) -> None:
    from . import catalogue

    connection.send(getattr(catalogue, question)(*arguments))


def _examine(name: str, connection: Connection) -> None:
    from .examine import examine

    examine(name, connection)


def _examined(name: str, context: Any, limit: float, stop: threading.Event) -> Row:
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_examine, args=(name, sending), daemon=True)
    process.start()
    sending.close()
    stage, begin = "start", time.monotonic()
    try:
        while not stop.is_set():
            found = _received(receiving, 0.2)
            if isinstance(found, Row):
                return found
            if isinstance(found, str):
                stage = found
            elif isinstance(found, EOFError):
                process.join()
                return _dead(name, stage, f"its process ended with {_ending(process.exitcode)}")
            elif time.monotonic() - begin > limit:
                return _dead(name, stage, f"it took more than {limit:.0f} s")
        return _dead(name, "start", "stopped")
    finally:
        process.kill()
        process.join()
        receiving.close()


def _received(connection: Connection, seconds: float) -> Any:
    """What the process has sent, None if nothing within `seconds`, an EOFError if it is gone."""
    try:
        return connection.recv() if connection.poll(seconds) else None
    except (EOFError, OSError) as error:
        return error if isinstance(error, EOFError) else EOFError()


def _ending(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"


def _dead(name: str, stage: str, what: str) -> Row:
    ours = stage in ("accelerate", "paca")
    when = f"while {stage} was tried" if ours else "before anything was tried"
    return Row(name, reason=f"{what} {when}", died=ours)
