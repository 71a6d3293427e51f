"""One invocation of a run: from the open tasks of a plan to rows on disk, told in run.json and on the terminal."""

import os
import signal
from typing import Any

from bench.busy import busy_cores, wait_quiet
from bench.busy import sentence as busy_sentence
from bench.devices import Device
from bench.errors import UserError, printable
from bench.process import terminate_as_interrupt
from bench.record.store import Record, now
from bench.runner.plan import Task
from bench.runner.progress import Display
from bench.runner.scheduler import Scheduler
from bench.sweeps.expand import Plan
from bench.sweeps.of_model import configs_of


def told_of(plan: Plan, command: str, **more: Any) -> dict[str, Any]:
    """What run.json says of an invocation: what was asked for, by which command, and under which settings."""
    return {
        "started": now(),
        "finished": None,
        "command": command,
        "sweep": {
            "name": printable(plan.sweep),
            "description": plan.description,
            "text": plan.text,
            "words": [printable(word) for word in plan.words],
            "configs": configs_of(plan),
        },
        "settings": plan.settings.model_dump(),
        **more,
    }


class Session:
    """Measures the open tasks of one plan into one record, and says so."""

    def __init__(
        self,
        plan: Plan,
        device: Device,
        record: Record,
        command: str,
        again: str,
        threads: int | None = None,
        scheduler: type[Scheduler] = Scheduler,
    ) -> None:
        """command, again: as a person types it, and what goes on where it was cut off."""
        self._plan, self._device, self._record = plan, device, record
        self._command, self._again = command, again
        self.display = Display()
        # Every second worker keeps a core busy with what is not timed; while one measures, all others wait.
        side_by_side = max(1, (os.cpu_count() or 1) // (threads or 1)) if device.is_cpu else 1
        self._threads = threads
        self.scheduler = scheduler(plan, device, record, self.display, threads, side_by_side=side_by_side)

    def measure(self, tasks: list[Task], total: int, quiet_s: float | None = None) -> int | None:
        """Measures the open tasks of `total`. None where they are done; the exit status where that was cut off: 128 +
        the signal's number, or 1 where the record cannot be written. What is finished is on disk."""
        record, say = self._record, self.display.say
        busy = busy_cores()
        invocation = told_of(self._plan, self._command, cases=total, open=len(tasks), busy_cores=round(busy, 2))
        record.run["invocations"].append(invocation)
        record.write_run()
        for note in record.notes:
            say(note)
        with terminate_as_interrupt() as interrupted:
            try:
                timed = self.scheduler.refuse(tasks)
                device, threads = self._device, self._threads
                say(
                    f"{self._plan.name} on {device.name} into {record.folder}: {len(timed)} of {total} cases to measure"
                )
                say(f"The machine: {busy_sentence(busy)}")
                if device.is_cpu:
                    say(f"CPU times are no GPU times. Clock cpu-time, {threads} thread{'s' * (threads != 1)}.")
                if quiet_s is not None:
                    wait_quiet(quiet_s, say)
                with self.display:
                    self.scheduler.run(timed)
                self._close(invocation)
            except KeyboardInterrupt:
                try:
                    self._close(invocation)
                except (OSError, UserError) as e:  # it was interrupted all the same, and is told so
                    say(f"error: {self._sentence(e)}")
                say(f"interrupted; what is finished is on disk. To go on: {self._again}")
                return 128 + (interrupted[0] if interrupted else signal.SIGINT)
            except OSError as e:
                say(f"error: {self._sentence(e)}; what was written before is whole")
                say(f"To go on once there is room: {self._again}")
                return 1
        return None

    def _sentence(self, e: OSError | UserError) -> str:
        return f"{e.filename or self._record.folder}: {e.strerror}" if isinstance(e, OSError) else str(e)

    def _close(self, invocation: dict[str, Any]) -> None:
        record = self._record
        record.load()  # an interrupt may have come between a row's way to disk and to memory
        invocation["finished"] = now()
        invocation["spent_s"] = {what: round(s, 3) for what, s in self.scheduler.spent.items()}
        record.write_run()
        record.write_csv()


def threads_of(device: Device, asked: int | None) -> int | None:
    """The threads that a CPU computes with; None leaves them to torch, on a GPU."""
    # One: with two, each waits at every barrier for whichever core a neighbour took.
    return asked or (1 if device.is_cpu else None)
