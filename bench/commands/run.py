"""python -m bench run, from its flags to its exit status."""

from contextlib import suppress
from pathlib import Path

from bench.again import command_line, to_go_on
from bench.cluster.layout import CLUSTER
from bench.devices import Device, choose, gpus
from bench.errors import UserError, shell_line
from bench.files import complete_move, move_was_cut_off
from bench.folder import hold
from bench.locks import Taken
from bench.process import terminate_as_interrupt
from bench.record.environment import provenance, tuned_hash
from bench.record.store import Record, check_record, open_record, peek_record
from bench.runner.lock import only_run_on
from bench.runner.plan import exit_status, open_tasks, plan_into
from bench.runner.session import Session, threads_of
from bench.runner.summary import closing_lines, nothing_open
from bench.sweeps.expand import Plan
from bench.sweeps.of_model import ModelRequest
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
    plan, folder = plan_into(asked, device, where, repeats, out)
    threads = threads_of(device, threads)
    environment = provenance(device, threads)
    try:
        whole = not move_was_cut_off(folder)
        if whole:
            check_record(folder, environment, fresh)
        record = peek_record(folder, environment) if whole and not fresh else None
        if record is not None and not open_tasks(plan, record, repeats, retry, tuned_hash(device)):
            for line in nothing_open(plan, f"{device.name} in {folder}", record, repeats):
                say(line)
            with suppress(Taken), hold(folder):  # whoever has the folder writes it
                record.write_csv()
            print_path(folder)
            return exit_status(plan, record, repeats, strict)
        if (folder / CLUSTER).exists():
            raise UserError(
                f"{folder / CLUSTER}: this folder is of a run --on several machines. Add --on to go on there, or pass"
                " another --out."
            )
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
    session = Session(plan, device, record, command_line(), to_go_on(), threads)
    cut_off = session.measure(tasks, len(plan.cases) * repeats, quiet_s)
    if cut_off is not None:
        return cut_off
    scheduler, display = session.scheduler, session.display
    for line in closing_lines(plan, record, repeats, scheduler.spent, scheduler.refused):
        display.say(line)
    display.say(f"Tables, plots and the answer: {shell_line(['python', '-m', 'plots', str(record.folder)])}")
    return exit_status(plan, record, repeats, strict)
