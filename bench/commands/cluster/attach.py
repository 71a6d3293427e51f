"""Attaches to the jobs of a folder: python -m bench status, and the second half of run --on."""

import os
import signal
import socket
from contextlib import ExitStack, suppress
from pathlib import Path

from bench.again import recorded
from bench.cluster.backend import Backend, Options, Unreachable, backend
from bench.cluster.layout import CLUSTER, Layout
from bench.cluster.owner import Attended, Owner, attend
from bench.cluster.show import ShardTable, table_of, total_line
from bench.cluster.submissions import Submission, read_submissions
from bench.cluster.watch import Watch
from bench.errors import UserError, listed, shell_line
from bench.process import terminate_as_interrupt
from bench.record.merge import GOES_ON, merge_records
from bench.record.read import read_kept_rows
from bench.record.store import Record
from bench.runner.plan import exit_status
from bench.runner.summary import closing_lines
from bench.terminal import output, print_path, say

EVERY_S = {"slurm": 5.0, "local": 1.0}  # between two looks; squeue is asked once a look
INTERVAL = "LORABENCH_POLL"  # seconds instead


def status_command(folder: Path) -> str:
    return shell_line(["python", "-m", "bench", "status", str(folder)])


def gather(layout: Layout, write: bool = True) -> Record:
    """What the shards have measured so far; merged into the folder where this process attends to it (write)."""
    sources = layout.records()
    if sources and write:
        for note in merge_records(sources, layout.folder, allow=GOES_ON, one_plan=True).notes:
            say(note)
        return Record(layout.folder, {}, read_kept_rows(layout.folder)[0])
    rows = (row for source in sources for row in read_kept_rows(source)[0])
    return Record(layout.folder, {}, sorted(rows, key=lambda row: str(row["measured_at"])))


def follow(layout: Layout, there: Backend, owner: Owner | None, cancelled: bool = False) -> int:
    """Watches the last submission of a folder until it is over, and merges what was measured; the exit status of `run`.
    An interrupt detaches. cancelled: nothing is submitted again."""
    submissions = read_submissions(layout.folder)
    last = submissions[-1]
    show = ShardTable()
    watch = Watch(layout, submissions, there, _options(last), show.say, owner, cancelled)
    with terminate_as_interrupt() as came:
        try:
            with show:
                watch.until_over(show, _every_s(there.name))
        except KeyboardInterrupt:
            live = [w for w in watch.shards if not w.settled]
            again = status_command(layout.folder)
            go_on = f"{len(live)} shard{'s go' if len(live) != 1 else ' goes'} on"
            show.say(f"detached; {go_on}. To attach again: {again}. To cancel: {again} --cancel")
            return 128 + (came[0] if came else signal.SIGINT)
    return _close(layout, last, watch)


def _close(layout: Layout, last: Submission, watch: Watch) -> int:
    record = gather(layout, watch.attends)
    plan = layout.read_plan(last.plan)
    say(total_line(watch))
    if logs := [str(log) for w in watch.shards if w.shard.left and (log := watch.log(w)).exists()]:
        say(f"What shards that were given up have printed: {', '.join(logs)}")
    again, _ = recorded(last.command, ())
    if any(w.open for w in watch.shards) and again:
        say(f"To measure what is open: {again}")
    if record.rows:
        for line in closing_lines(plan, record, last.repeats, retry=lambda bad: recorded(last.command, bad)[1]):
            say(line)
        say(f"Tables, plots and the answer: {shell_line(['python', '-m', 'plots', str(layout.folder)])}")
    print_path(layout.folder)
    return exit_status(plan, record, last.repeats, last.strict)


def show_status(folder: Path, once: bool, cancel: bool) -> int:
    """python -m bench status. Raises UserError where nothing was submitted from the folder."""
    layout = Layout(folder.absolute())
    submissions = read_submissions(layout.folder)
    if not submissions:
        what = "no such folder" if not folder.is_dir() else f"no {CLUSTER} is in it: nothing was submitted from it"
        raise UserError(f"{folder}: {what}. Pass the --out of a `python -m bench run --on slurm` or `--on local`.")
    last = submissions[-1]
    if last.backend == "local" and last.host != socket.gethostname():
        raise UserError(f"{folder}: its jobs run on {last.host}, as {last.user}. Ask there.")
    there = backend(last.backend, layout.jobs)
    there.check()
    with ExitStack() as stack, terminate_as_interrupt():
        owner = None
        # What a folder says is submitted by whom it belongs to alone: sbatch's options and --python run as they stand.
        if (layout.folder / CLUSTER).stat().st_uid != os.getuid():
            say(f"{last.user} has submitted it, and submits again what is cut off; this only looks on")
        elif not once:
            try:
                owner = stack.enter_context(attend(layout.folder))
            except Attended as e:
                say(f"{e.who} attends to this folder, and submits again what is cut off; this only looks on")
        if cancel:
            _cancel(layout, last, there)
        if not once:
            return follow(layout, there, owner, cancel)
        watch = Watch(layout, submissions, there, _options(last), say)
        watch.look()
        console = output()
        console.print(table_of(watch.shards))
        console.print(total_line(watch))
        if watch.trouble:
            say(watch.trouble)
        return 0


def _cancel(layout: Layout, last: Submission, there: Backend) -> None:
    try:
        live = [job for job, state in there.states(last.last_jobs).items() if state.word != "ended"]
        there.cancel(live)
    except Unreachable as e:
        raise UserError(f"{layout.folder}: its jobs cannot be cancelled now: {e}") from None
    say(f"cancelled: {listed(live)}" if live else "no job was left to cancel")


def _options(last: Submission) -> Options:
    known = {k: v for k, v in last.options.items() if k in Options.__dataclass_fields__ and v is not None}
    return Options(**known, sbatch=last.sbatch)


def _every_s(name: str) -> float:
    with suppress(ValueError):
        return max(0.05, float(os.environ.get(INTERVAL, "")))
    return EVERY_S[name]
