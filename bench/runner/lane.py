"""A worker as the scheduler talks to it: a command goes out, and its answer or how the worker was lost comes back."""

import signal
from collections.abc import Callable, Sequence
from time import perf_counter, sleep
from typing import Any

from bench.case.schema import Status
from bench.devices import Device, visible_index
from bench.record.store import now
from bench.runner.worker_process import Event, Silent, Worker
from bench.timing.settings import MeasureSettings

# Whoever kills a worker may be about to kill this process too, as a batch system that ends a job: that is no crash of a
# case, and must not be on record as one.
SAME_END_S = 0.5


class Lost(Exception):
    """The case at hand has no answer: its worker failed at it, died or hung.

    early: before the worker had said hello, so that another one would do no better.
    """

    def __init__(self, status: Status, detail: str, early: bool = False) -> None:
        super().__init__(detail)
        self.status, self.detail, self.early = status, detail, early


def job_for(
    device: Device, settings: MeasureSettings, threads: int | None, passes: Sequence[str] = (), ceilings: bool = False
) -> dict[str, Any]:
    """What a worker is greeted with. threads: that a CPU computes with; None leaves it to torch. passes: those that are
    timed. ceilings: whether it measures the device's own peaks first."""
    return {
        "device": "cpu" if device.is_cpu else f"cuda:{visible_index(device)}",
        "gpu_uuid": device.uuid,
        "threads": threads,
        "passes": list(passes),
        "settings": settings.model_dump(),
        "ceilings": ceilings,
    }


class Lane:
    """One worker, which measures the cases of one method and impl, one at a time."""

    def __init__(self, worker: Worker, on_event: Callable[[Event], None] = lambda _event: None) -> None:
        """on_event: is told what the worker says on its way to an answer."""
        self._worker = worker
        self._on_event = on_event
        self._events = worker.events()
        self.greeted = False
        self._started = perf_counter()
        self.process = f"{worker.pid}-{now()}"
        self.own: list[int] = []  # its processes as NVML counts them

    @property
    def alive(self) -> bool:
        return self._worker.alive

    def greet(self, job: dict[str, Any]) -> Event:
        """Gives the worker its job; its hello. Raises Lost."""
        self._worker.send(job)
        hello = self.hear("hello")
        self.greeted = True
        self.own = hello["own"]
        self._on_event({"event": "spent", "spent": {"starting": perf_counter() - self._started}})
        return hello

    def send(self, do: str, **values: Any) -> None:
        """A command; `hear` gives its answer."""
        self._worker.send({"do": do, **values})

    def ask(self, do: str, answer: str, **values: Any) -> Event:
        """A command, and the event that answers it. Raises Lost."""
        self.send(do, **values)
        return self.hear(answer)

    def hear(self, answer: str) -> Event:
        """The next event of that name; those before it go to on_event. Raises Lost."""
        try:
            for event in self._events:
                if event["event"] == "failed":
                    if event["last"]:
                        self.close()
                    raise Lost(Status(event["status"]), event["detail"])
                self._on_event(event)
                if event["event"] == answer:
                    return event
        except Silent as e:
            self.close()
            raise Lost(Status.timeout, f"{e}; killed") from None
        code = self._worker.wait()
        if code < 0:
            sleep(SAME_END_S)
        words = self._worker.last_words()
        self.close()
        status, detail = _how_it_ended(code, words)
        raise Lost(status, detail, early=not self.greeted and status is Status.error)

    def close(self) -> None:
        """Ends the worker, whatever it does."""
        if not self._worker.closed:
            self._worker.__exit__()


def _how_it_ended(code: int, last_words: str) -> tuple[Status, str]:
    if code < 0:
        name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
        hint = " (the kernel's out-of-memory killer sends it too)" if -code == signal.SIGKILL else ""
        return Status.crashed, f"the worker was ended by {name}{hint}"
    return Status.error, f"the worker ended with status {code}: {last_words}"
