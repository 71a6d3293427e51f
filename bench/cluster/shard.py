"""What a job does: one attempt at one shard, as a local run, into a folder of its own."""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from bench.cluster.layout import Assignment, Layout
from bench.cluster.local import local_id
from bench.cluster.submissions import read_submissions
from bench.devices import Device, choose, gpus
from bench.errors import UserError
from bench.process import terminate_as_interrupt
from bench.record.environment import IDENTITY, provenance
from bench.record.read import read_kept_rows
from bench.record.store import key_of, open_record
from bench.runner.lock import only_run_on
from bench.runner.plan import Task
from bench.runner.scheduler import Scheduler
from bench.runner.session import Session, threads_of
from bench.terminal import say

LISTED_S = 120.0  # within which whoever submitted a job has written it down; a client of NFS may see it a minute late


class Superseded(Exception):
    """A later attempt at the same shard has begun."""


class Shard:
    """A job of a shard, as submitit pickles it: called on the node, without arguments."""

    def __init__(self, folder: Path, number: int, gpu: int | None = None) -> None:
        """folder: absolute, as the nodes see it. gpu: its index on this machine, for --on local."""
        self.folder, self.number, self.gpu = str(folder), number, gpu

    def __call__(self) -> int:
        """Measures; the attempt's exit status. Raises SystemExit where the shard is not done: what submitit and Slurm
        are to take for a failed job."""
        from submitit import JobEnvironment

        with terminate_as_interrupt():
            status = attempt(Path(self.folder), self.number, _own_id(JobEnvironment()))
        if status:
            sys.exit(status)
        return status

    def checkpoint(self) -> Any:
        """What submitit submits when the time is over, or a job with a better claim needs the node: the same again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def node() -> str:
    """As Slurm calls it, elsewhere its host name."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def _own_id(job: Any) -> str:
    """As the backend gave it to whoever submitted this job."""
    return local_id(Path(job.paths.folder), job.job_id) if job.cluster == "local" else str(job.job_id)


def attempt(
    folder: Path, number: int, job: str, found: list[Device] | None = None, scheduler: type[Scheduler] = Scheduler
) -> int:
    """One attempt at a shard of a folder, as the job of that id. The exit status: 0 where every task has its rows, 1
    where the record cannot be written, 2 where this node cannot measure it, 128 + a signal's number.

    found: the GPUs of this node; default: as NVML tells them."""
    layout = Layout(folder)
    if not _is_listed(folder, number, job):
        say(f"shard {number} of {folder} does not list job {job}, as where it was submitted by a command cut off: over")
        return 2
    here = layout.claim(number)
    say(f"job {job} on {node()}: attempt {len(layout.attempts(number))} at shard {number}, into {here}")
    try:
        status, detail = _measure(layout, number, here, gpus() if found is None else found, scheduler), ""
    except UserError as e:
        status, detail = 2, str(e)
    except Superseded:
        say("error: a later attempt at this shard has begun elsewhere; this one has written nothing since")
        return 1
    except OSError as e:
        status, detail = 1, f"{e.filename or here}: {e.strerror}"
    if detail:
        say(f"error: {detail}")
    layout.write_end(here, status, detail)
    return status


def _measure(layout: Layout, number: int, here: Path, found: list[Device], scheduler: type[Scheduler]) -> int:
    told = layout.read_assignment(number)
    device = choose(told.gpu, found)
    threads = threads_of(device, told.threads)
    environment = provenance(device, threads) | {"host": node()}
    if differs := layout.agree(environment, IDENTITY, node()):
        advice = (
            "Keep to nodes that are alike, as with --slurm constraint=..., or give each kind a folder of its own;"
            " --fresh begins anew, where the first node is the odd one"
        )
        if "source_hash" in differs:
            advice = "The sources have changed meanwhile: the same run again sets the earlier record aside"
        raise UserError(f"{differs}. {advice}")
    with only_run_on(device, say):
        record = open_record(here, environment)
        record.before_adding = _fence(layout, number, here)
        tasks = open_in(layout, number, told)
        session = Session(told.plan, device, record, told.command, told.again, threads, scheduler)
        return session.measure(tasks, len(told.tasks), told.quiet_s) or 0


def open_in(layout: Layout, number: int, told: Assignment) -> list[Task]:
    """The tasks of a shard of which no attempt so far has all rows."""
    rows = {key_of(row) for path in layout.attempts(number) for row in _rows(path)}
    return [
        (repeat, case)
        for repeat, case in told.tasks
        if any((case.case_id, p, c, repeat) not in rows for p, c in told.plan.row_keys)
    ]


def _rows(path: Path) -> list[dict[str, Any]]:
    """Without a torn last line: whoever wrote it is dead, or will not write it out (see Superseded)."""
    return read_kept_rows(path)[0]


def _fence(layout: Layout, number: int, here: Path) -> Callable[[], None]:
    """Keeps a node that was given up from writing: a job that the queue takes for dead may go on for a while, also when
    the folder was set aside and another one has its name."""
    own = here.stat()

    def check() -> None:
        if layout.superseded(number, here) or not os.path.samestat(here.stat(), own):
            raise Superseded

    return check


def _is_listed(folder: Path, number: int, job: str) -> bool:
    """Whether cluster.json has this job, which it may get only after the job has begun."""
    deadline = monotonic() + LISTED_S
    while True:
        late = monotonic() >= deadline
        try:
            submissions = read_submissions(folder)
        except UserError:  # NFS loses a file that is replaced while it is read
            if late:
                raise
            submissions = []
        if any(job in shard.jobs for s in submissions for shard in s.shards if shard.number == number):
            return True
        if late:
            return False
        sleep(1.0)
