"""A worker process as the scheduler sees it: commands go in, events come out, silence has a limit.

It is started before its job comes: it imports what it needs, without CUDA, and waits.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.record.environment import ROOT

Event = dict[str, Any]


class Silent(Exception):
    """The worker said nothing for longer than it may."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"silent for {seconds:g} s")


def surroundings() -> dict[str, str]:
    """The environment in which a case is built, beside what this process has."""
    return {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as NVML counts
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": os.environ.get("HF_HUB_OFFLINE", "1"),  # random weights: nothing to ask the Hub for
        "PYTHONUNBUFFERED": "1",
        # Clock device queues a whole call behind a sleep; the queue holds about 1000 launches otherwise.
        "CUDA_SCALE_LAUNCH_QUEUES": os.environ.get("CUDA_SCALE_LAUNCH_QUEUES", "4x"),
    }


class Worker:
    """A running worker. Use as a context: on leaving it the worker and everything it started are gone."""

    def __init__(self, log: Path, timeout_s: float, models: bool = False) -> None:
        """models: its cases are blocks or models, so that it imports transformers before its job comes."""
        self._timeout_s = timeout_s
        self.log = log
        self.closed = False
        self._buffer = b""
        read_end, write_end = os.pipe()
        log.parent.mkdir(parents=True, exist_ok=True)
        self._log_start = log.stat().st_size if log.exists() else 0
        env = os.environ | surroundings()
        env |= {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
        with open(log, "ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.runner.worker", str(write_end), *["models"] * models],
                stdin=subprocess.PIPE, stdout=out, stderr=out, pass_fds=[write_end], env=env,
                start_new_session=True,  # Ctrl-C reaches the scheduler alone, and kill() all below
            )  # fmt: skip
        os.close(write_end)
        self._events = read_end
        assert self._process.stdin is not None
        self._stdin = self._process.stdin

    def send(self, job: dict[str, Any]) -> None:
        """Gives the worker its job, and then commands."""
        with contextlib.suppress(BrokenPipeError):  # it died at once; events() ends and wait() says how
            self._stdin.write(json.dumps(job).encode() + b"\n")
            self._stdin.flush()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return not self.closed and self._process.poll() is None

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.closed = True
        self.kill()
        with contextlib.suppress(BrokenPipeError):  # a job that it did not live to read
            self._stdin.close()
        os.close(self._events)

    def kill(self) -> None:
        """SIGKILL to the worker's whole process group: a stopped or hung worker goes too."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def events(self) -> Iterator[Event]:
        """The worker's events until it closes its pipe. Raises Silent when none comes for timeout_s, or for as long as
        the last event asked for by `patience_s`."""
        patience = self._timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._events, selectors.EVENT_READ)
            deadline = time.monotonic() + patience
            while True:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    raise Silent(patience)
                chunk = os.read(self._events, 65536)
                if not chunk:
                    return
                *lines, self._buffer = (self._buffer + chunk).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    patience = event.get("patience_s", self._timeout_s)
                    yield event
                deadline = time.monotonic() + patience

    def wait(self) -> int:
        """The exit status, negative for the signal that ended it. Call after events() has ended."""
        try:
            return self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()

    def last_words(self) -> str:
        """The last line of what this worker printed."""
        with open(self.log, "rb") as f:
            f.seek(self._log_start)
            lines = f.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip()[:300] if lines else ""
