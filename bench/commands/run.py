"""python -m bench run, from its flags to its exit status."""

import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.again import command_line, to_go_on
from bench.busy import busy_cores, wait_quiet
from bench.busy import sentence as busy_sentence
from bench.devices import Device, choose, gpus
from bench.errors import UserError, printable, shell_line
from bench.files import complete_move, move_was_cut_off
from bench.folder import hold, usable
from bench.locks import Taken
from bench.process import terminate_as_interrupt
from bench.record.environment import provenance, tuned_hash
from bench.record.store import Record, check_record, now, open_record, peek_record
from bench.runner.lock import only_run_on
from bench.runner.plan import check_size, exit_status, open_tasks, results_folder
from bench.runner.progress import Display
from bench.runner.scheduler import Scheduler
from bench.runner.summary import closing_lines
from bench.sweeps.expand import Plan
from bench.sweeps.of_model import ModelRequest, configs_of, folder_name, plan_of
from bench.terminal import print_path, say


def run_sweep(
    asked: str | ModelRequest,
    gpu: str,
    out: Path | None,
    where: tuple[str, ...],
    fresh: bool,
    retry: frozenset[str],
    repeats: int,
    strict: bool,
    threads: int | None,
    quiet_s: float | None,
) -> int:
    """Measures a sweep, or a model under Table 1's methods, into its folder, prints the folder's path on standard
    output, and returns the exit status.

    threads: that the CPU computes with; one by default where there is no GPU. quiet_s: how long to wait at most for the
    machine to come to rest; None: not at all. Everything but the path goes to standard error, so that scripts can take
    it. Raises UserError before anything is changed.
    """
    device = choose(gpu, gpus())
    plan = plan_of(asked, device.is_cpu, where)
    if not plan.cases:
        raise UserError(f"--where {' '.join(where)}: no case is left to measure")
    check_size(plan, repeats)
    folder = usable("--out", out or results_folder(Path("results") / device.key, folder_name(plan)))
    # One: with two, each waits at every barrier for whichever core a neighbour took.
    threads = threads or (1 if device.is_cpu else None)
    environment = provenance(device, threads)
    try:
        whole = not move_was_cut_off(folder)
        if whole:
            check_record(folder, environment, fresh)
        record = peek_record(folder, environment) if whole and not fresh else None
        if record is not None and not open_tasks(plan, record, repeats, retry, tuned_hash(device)):
            say(f"{plan.name} on {device.name} in {folder}: all {len(plan.cases) * repeats} cases are measured")
            for line in closing_lines(plan, record, repeats, {}, ()):
                say(line)
            with suppress(Taken), hold(folder):  # whoever has the folder writes it
                record.write_csv()
            print_path(folder)
            return exit_status(plan, record, repeats, strict)
        with (
            terminate_as_interrupt(),
            hold(folder, lambda process: say(_waits(process, folder))),
            only_run_on(device, say),
        ):
            complete_move(folder)
            record = open_record(folder, environment, fresh)
            status = _measure(plan, device, record, retry, repeats, strict, threads, quiet_s)
            print_path(folder)
            return status
    except OSError as e:
        raise UserError(f"{e.filename or folder}: {e.strerror}; nothing was measured") from None


def _waits(process: str, folder: Path) -> str:
    return f"another run (process {process}) is measuring into {folder}; waiting until it is done"


def _measure(
    plan: Plan,
    device: Device,
    record: Record,
    retry: frozenset[str],
    repeats: int,
    strict: bool,
    threads: int | None,
    quiet_s: float | None,
) -> int:
    tasks = open_tasks(plan, record, repeats, retry, tuned_hash(device))
    total = len(plan.cases) * repeats
    busy = busy_cores()
    invocation: dict[str, Any] = {
        "started": now(),
        "finished": None,
        "command": command_line(),
        "sweep": {
            "name": printable(plan.sweep),
            "description": plan.description,
            "text": plan.text,
            "words": [printable(word) for word in plan.words],
            "configs": configs_of(plan),
        },
        "settings": plan.settings.model_dump(),
        "cases": total,
        "open": len(tasks),
        "busy_cores": round(busy, 2),
    }
    record.run["invocations"].append(invocation)
    record.write_run()
    display = Display()
    for note in record.notes:
        display.say(note)
    # Every second worker keeps a core busy with what is not timed; while one measures, all others wait.
    side_by_side = max(1, (os.cpu_count() or 1) // (threads or 1)) if device.is_cpu else 1
    scheduler = Scheduler(plan, device, record, display, threads, side_by_side=side_by_side)
    with terminate_as_interrupt() as interrupted:
        try:
            timed = scheduler.refuse(tasks)
            display.say(f"{plan.name} on {device.name} into {record.folder}: {len(timed)} of {total} cases to measure")
            display.say(f"The machine: {busy_sentence(busy)}")
            if device.is_cpu:
                display.say(f"CPU times are no GPU times. Clock cpu-time, {threads} thread{'s' * (threads != 1)}.")
            if quiet_s is not None:
                wait_quiet(quiet_s, display.say)
            with display:
                scheduler.run(timed)
            _close(record, invocation, scheduler)
        except KeyboardInterrupt:
            try:
                _close(record, invocation, scheduler)
            except (OSError, UserError) as e:  # it was interrupted all the same, and is told so
                display.say(f"error: {_sentence(e, record)}")
            display.say(f"interrupted; what is finished is on disk. To go on: {to_go_on()}")
            return 128 + (interrupted[0] if interrupted else signal.SIGINT)
        except OSError as e:
            display.say(f"error: {_sentence(e, record)}; what was written before is whole")
            display.say(f"To go on once there is room: {to_go_on()}")
            return 1
    for line in closing_lines(plan, record, repeats, scheduler.spent, scheduler.refused):
        display.say(line)
    display.say(f"Tables, plots and the answer: {shell_line(['python', '-m', 'plots', str(record.folder)])}")
    return exit_status(plan, record, repeats, strict)


def _sentence(e: OSError | UserError, record: Record) -> str:
    return f"{e.filename or record.folder}: {e.strerror}" if isinstance(e, OSError) else str(e)


def _close(record: Record, invocation: dict[str, Any], scheduler: Scheduler) -> None:
    record.load()  # an interrupt may have come between a row's way to disk and to memory
    invocation["finished"] = now()
    invocation["spent_s"] = {what: round(s, 3) for what, s in scheduler.spent.items()}
    record.write_run()
    record.write_csv()
