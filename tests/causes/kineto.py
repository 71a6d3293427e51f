"""What torch's profiler reads from kineto of a call on a GPU, made up event by event, and read by torch's own parser.

The numbers are those that torch and CUPTI give: of torch's operators from 1 on (torch/csrc/profiler/collection.cpp,
EventBlock), of calls of CUDA from 1 on too, and of what CUPTI notes of itself that of the operator around it (there,
kinetoEventCorrelationID). A kernel is linked to the innermost operator of the thread that launched it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from types import SimpleNamespace
from typing import Any

from torch.autograd import DeviceType, profiler
from torch.autograd.profiler_util import EventList

MAIN, ENGINE = 1, 2  # threads: Python's, and the one on which autograd runs the backward of a GPU


class _Event:
    """A torch._C._autograd._KinetoEvent: every value by a method."""

    def __init__(self, name: str, start_us: float, **values: Any) -> None:
        self.end_us = start_us
        self.values = {"name": name, "start_ns": int(start_us * 1000), **values}

    def __getattr__(self, name: str) -> Callable[[], Any]:
        thread = self.values.get("start_thread_id", MAIN)
        plain: dict[str, Any] = {
            "end_ns": int(self.end_us * 1000), "device_type": DeviceType.CPU, "device_index": 0, "correlation_id": 0,
            "linked_correlation_id": 0, "start_thread_id": thread, "end_thread_id": thread,
            "stack": [], "sequence_nr": -1, "scope": 0, "cuda_elapsed_us": -1, "is_async": False,
            "is_user_annotation": False, "is_hidden_event": False,
        }  # fmt: skip
        value = self.values.get(name, plain.get(name))
        return lambda: value


class Kineto:
    """A clock, the stacks of the host's threads, and a GPU with one stream."""

    def __init__(self) -> None:
        self.us = 0.0
        self._gpu_free = 0.0
        self._events: list[_Event] = []
        self._operators, self._calls = count(1), count(1)
        self._stacks: dict[int, list[int]] = {MAIN: [], ENGINE: []}

    @contextmanager
    def operator(self, name: str, thread: int = MAIN) -> Iterator[int]:
        """An operator, a node of autograd or a Function; its number."""
        number = next(self._operators)
        event = self._add(_Event(name, self.us, correlation_id=number, start_thread_id=thread))
        self._stacks[thread].append(number)
        yield number
        self._stacks[thread].pop()
        self.us += 1
        event.end_us = self.us

    @contextmanager
    def annotation(self, name: str) -> Iterator[None]:
        """record_function: a range on the host, mirrored on the GPU around what begins within it."""
        event = self._add(_Event(name, self.us, correlation_id=next(self._operators), is_user_annotation=True))
        free = self._gpu_free
        yield
        self.us += 1
        event.end_us = self.us
        if self._gpu_free > free:
            there = self._add(
                _Event(name, max(free, event.values["start_ns"] / 1000), **_on_gpu(), is_user_annotation=True)
            )
            there.end_us = self._gpu_free

    def launch(
        self, kernel: str, us: float, thread: int = MAIN, by: str = "cudaLaunchKernel", dependent: bool = False
    ) -> None:
        """A kernel that works for so long, 5 us after the call or when the one before has ended. dependent: it is there
        5 us after the call, and waits (programmatic dependent launch)."""
        call, linked = next(self._calls), self._stacks[thread][-1] if self._stacks[thread] else 0
        self._call(by, call, linked, thread)
        works = max(self.us + 5, self._gpu_free)
        begins = self.us + 5 if dependent else works
        event = self._add(_Event(kernel, begins, correlation_id=call, linked_correlation_id=linked, **_on_gpu()))
        event.end_us = self._gpu_free = works + us

    def synchronize(self, number: int | None = None) -> None:
        """number: that of the call, where it should be one that an operator has too."""
        self._call("cudaDeviceSynchronize", number or next(self._calls), 0, MAIN)
        self.us = max(self.us, self._gpu_free)

    def overhead(self, name: str, thread: int = MAIN) -> None:
        """What CUPTI does within an operator, for itself."""
        event = self._add(_Event(name, self.us, correlation_id=self._stacks[thread][-1], start_thread_id=thread))
        self.us += 1
        event.end_us = self.us

    def events(self) -> EventList:
        """As torch.profiler.profile.events() has them."""
        result: Any = SimpleNamespace(events=lambda: self._events, trace_start_ns=lambda: 0)
        of: Any = SimpleNamespace(use_device="cuda")
        found = EventList(profiler.profile._parse_kineto_results(of, result), use_device="cuda")
        found._build_tree()
        return found

    def _call(self, name: str, number: int, linked: int, thread: int) -> None:
        # One that no operator makes is put on the main thread (TransferEvents::setKinetoTID).
        on = thread if linked else MAIN
        event = self._add(
            _Event(name, self.us, correlation_id=number, linked_correlation_id=linked, start_thread_id=on)
        )
        self.us += 0.5
        event.end_us = self.us

    def _add(self, event: _Event) -> _Event:
        self._events.append(event)
        return event


def _on_gpu() -> dict[str, Any]:
    return {"device_type": DeviceType.CUDA, "start_thread_id": 7}
