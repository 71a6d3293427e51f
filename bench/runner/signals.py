"""Signals between a command and the processes it starts: it interrupts them, and none outlives its starter."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from bench.process import AGAIN_S


def run_command(
    command: Sequence[str],
    root: Path,
    *,
    seconds: float | None = None,
    shutdown_s: float = AGAIN_S,
    meanwhile: Callable[[], None] | None = None,
    every_s: float = 40.0,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> int | None:
    """Runs a command that imports this suite from `root`; its exit status, or None where `seconds` were over.

    It gets a session of its own, so that Ctrl-C reaches it once, from here, and it can put its files in order: it is
    interrupted when the time is over or this process is, and then has shutdown_s before it is killed with whatever it
    started. meanwhile: called every every_s while it runs. environment: variables
    beside those of this process. options: of subprocess.Popen. Raises KeyboardInterrupt.
    """
    env = os.environ | dict(environment or {})
    env |= {"PYTHONPATH": os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])}
    deadline = None if seconds is None else monotonic() + seconds
    process = subprocess.Popen(command, env=env, start_new_session=True, preexec_fn=_before_exec(), **options)
    try:
        while True:
            left = every_s if deadline is None else min(every_s, deadline - monotonic())
            try:
                return process.wait(max(0.0, left))
            except subprocess.TimeoutExpired:
                if deadline is not None and monotonic() >= deadline:
                    _interrupt(process, shutdown_s)
                    return None
                if meanwhile:
                    meanwhile()
    except KeyboardInterrupt:
        _interrupt(process, shutdown_s)
        raise
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _interrupt(process: subprocess.Popen[bytes], shutdown_s: float) -> None:
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(shutdown_s)


def _before_exec() -> Callable[[], None]:
    """For a new process to call first. It heeds SIGINT, which it may have inherited as ignored; and where this process
    dies without a word, the kernel (Linux) sends it SIGTERM, which it takes as Ctrl-C."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None  # opened before the fork
    PR_SET_PDEATHSIG = 1  # linux/prctl.h

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        if libc:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)

    return prepare
