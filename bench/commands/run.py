"""python -m bench run, from its flags to its exit status."""

import signal
from pathlib import Path
from typing import Any

from bench.devices import Device, choose, gpus
from bench.errors import UserError
from bench.record.environment import command_line, command_to_go_on, provenance, tuned_hash
from bench.record.store import Record, now, open_record
from bench.runner.lock import only_run_on
from bench.runner.progress import Display
from bench.runner.scheduler import Scheduler, default_folder, exit_status, open_tasks
from bench.runner.signals import terminate_as_interrupt
from bench.runner.summary import closing_lines
from bench.sweeps.expand import Plan, make_plan
from bench.terminal import say


def run_sweep(
    sweep: str,
    gpu: str,
    out: Path | None,
    where: tuple[str, ...],
    fresh: bool,
    retry: frozenset[str],
    repeats: int,
    strict: bool,
) -> int:
    """Measures a sweep into its folder, prints the folder's path on standard output, and returns the exit status.

    Everything else goes to standard error, so that scripts can take the path. Raises UserError before anything is
    changed.
    """
    device = choose(gpu, gpus())
    plan = make_plan(sweep, device.is_cpu, where)
    if not plan.cases:
        raise UserError(f"--where {' '.join(where)}: no case is left to measure")
    folder = out or default_folder(device, plan)
    try:
        with only_run_on(device, say):
            record = open_record(folder, provenance(device), fresh)
            status = _measure(plan, device, record, retry, repeats, strict)
            print(folder)
            return status
    except OSError as e:
        raise UserError(f"{e.filename or folder}: {e.strerror}; nothing was measured") from None


def _measure(plan: Plan, device: Device, record: Record, retry: frozenset[str], repeats: int, strict: bool) -> int:
    tasks = open_tasks(plan, record, repeats, retry, tuned_hash(device))
    total = len(plan.cases) * repeats
    invocation: dict[str, Any] = {
        "started": now(),
        "finished": None,
        "command": command_line(),
        "sweep": {"name": plan.sweep, "description": plan.description, "text": plan.text},
        "settings": plan.settings.model_dump(),
        "cases": total,
        "open": len(tasks),
    }
    record.run["invocations"].append(invocation)
    record.write_run()
    display = Display(len(tasks))
    for note in record.notes:
        display.say(note)
    display.say(f"{plan.sweep} on {device.name} into {record.folder}: {len(tasks)} of {total} cases to measure")
    if device.is_cpu:
        display.say("CPU times are no GPU times: they show that the suite works, and how a CPU behaves.")
    scheduler = Scheduler(plan, device, record, display)
    with terminate_as_interrupt() as interrupted:
        try:
            with display:
                scheduler.run(tasks)
        except KeyboardInterrupt:
            _close(record, invocation, scheduler)
            display.say(f"interrupted; what is finished is on disk. To go on: {command_to_go_on()}")
            return 128 + (interrupted[0] if interrupted else signal.SIGINT)
        except OSError as e:
            display.say(f"error: {e.filename or record.folder}: {e.strerror}; what was written before is whole")
            display.say(f"To go on once there is room: {command_to_go_on()}")
            return 1
    _close(record, invocation, scheduler)
    for line in closing_lines(plan, record, repeats, scheduler.spent):
        display.say(line)
    return exit_status(plan, record, repeats, strict)


def _close(record: Record, invocation: dict[str, Any], scheduler: Scheduler) -> None:
    record.load()  # an interrupt may have come between a row's way to disk and to memory
    invocation["finished"] = now()
    invocation["spent_s"] = {what: round(s, 3) for what, s in scheduler.spent.items()}
    record.write_run()
    record.write_csv()
