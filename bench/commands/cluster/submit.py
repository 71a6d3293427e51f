"""python -m bench run --on slurm|local: from its flags to the exit status."""

import socket
from collections.abc import Sequence
from math import ceil
from pathlib import Path
from typing import Any

from bench.again import command_line, to_go_on
from bench.cluster.backend import Backend, Options, Unreachable, backend
from bench.cluster.estimate import prices
from bench.cluster.layout import CLUSTER, ENVIRONMENT, Layout
from bench.cluster.owner import Attended, Owner, attend, user
from bench.cluster.shard import Shard
from bench.cluster.split import split
from bench.cluster.submissions import ShardJobs, Submission, read_submissions, write_submissions
from bench.commands.cluster.attach import follow, gather, status_command
from bench.commands.cluster.request import Request
from bench.devices import Device, choose, choose_any, gpus
from bench.errors import UserError
from bench.files import complete_move
from bench.process import terminate_as_interrupt
from bench.reading import read_json
from bench.record.environment import source_hash, tuned_hash
from bench.record.read import ROWS, RUN, read_run
from bench.record.store import move_aside, now
from bench.runner.plan import Task, exit_status, open_tasks, plan_into
from bench.runner.summary import nothing_open
from bench.sweeps.expand import Plan
from bench.sweeps.of_model import ModelRequest
from bench.terminal import duration, print_path, say

SHARD_S = 1800.0  # that a shard takes where --array does not say how many there are
LEAST_MINUTES, SPARE = 30, 2.0  # of a job's time limit: an estimate may be off by a factor of two


def run_on(
    request: Request,
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
    """Splits a sweep into shards, submits them, and watches them until they are done; the exit status of `run`.

    Parameters are those of run_sweep. An interrupt detaches: the jobs go on. Raises UserError before anything is
    submitted.
    """
    found = gpus()
    device = _device(request, gpu, found)
    plan, folder = plan_into(asked, device, where, repeats, out)
    if (folder / ROWS).exists() and not (folder / CLUSTER).exists():
        raise UserError(
            f"{folder / ROWS}: this record is of a run without --on. Pass another --out; `python -m bench merge` joins"
            " both afterwards."
        )
    layout = Layout(folder.absolute())
    there = backend(request.backend, layout.jobs)
    there.check()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with terminate_as_interrupt(), attend(folder) as owner:
            _refuse_live(layout)
            complete_move(folder)
            _make_way(layout, fresh)
            record = gather(layout)
            tasks = open_tasks(plan, record, repeats, retry, tuned_hash(device))
            if not tasks:
                for line in nothing_open(plan, f"{device.name} in {folder}", record, repeats):
                    say(line)
                print_path(folder)
                return exit_status(plan, record, repeats, strict)
            local = [d for d in found if d.key == device.key] if request.backend == "local" else []
            parts, seconds = _shards(request, plan, device, tasks, len(local) or 1, folder)
            options = _options(request, device, max(seconds))
            submission = _write_down(
                layout, request, plan, parts, seconds, local, options, gpu, device, repeats, strict
            )
            for shard, part in zip(submission.shards, parts, strict=True):
                layout.write_assignment(
                    shard.number, submission.plan, part, gpu=submission.gpu, threads=threads, quiet_s=quiet_s,
                    command=submission.command, again=to_go_on(),
                )  # fmt: skip
            _submit(layout, submission, there, options, owner)
            told = f"{len(tasks)} of {len(plan.cases) * repeats} cases in {len(parts)} shard{'s' * (len(parts) != 1)}"
            say(f"{plan.name} on {request.backend} into {folder}: {told}, the longest about {duration(max(seconds))}")
            return follow(layout, there, owner)
    except Attended as e:
        raise UserError(f"{folder}: {e.who} attends to this folder. To look on: {status_command(folder)}") from None
    except OSError as e:
        raise UserError(f"{e.filename or folder}: {e.strerror}; nothing was submitted") from None


def _device(request: Request, gpu: str, found: list[Device]) -> Device:
    if request.backend == "local":
        return choose(gpu, found)
    if gpu == "auto":
        raise UserError("--gpu auto: where a job will run, nobody knows yet. Name the GPU: --gpu a100, or --gpu cpu.")
    return choose_any(gpu, found)


def _refuse_live(layout: Layout) -> None:
    """Raises UserError where jobs of an earlier command still measure into the folder."""
    submissions = read_submissions(layout.folder)
    if not submissions:
        return
    last = submissions[-1]
    if all(_is_over(layout, shard, last.backend) for shard in last.shards):  # as it says itself, wherever it ran
        return
    try:
        states = backend(last.backend, layout.jobs).states(last.last_jobs)
    except Unreachable as e:
        raise UserError(f"{layout.folder}: whether the jobs of {last.user} still run is not known: {e}") from None
    live = [job for job, state in states.items() if state.word != "ended"]
    if live:
        named = ", ".join(live[:4]) + (f" and {len(live) - 4} more" if len(live) > 4 else "")
        attach = status_command(layout.folder)
        raise UserError(
            f"{layout.folder}: jobs of {last.user} measure into it: {named}. To attach: {attach}. To cancel them:"
            f" {attach} --cancel"
        )


def _is_over(layout: Layout, shard: ShardJobs, name: str) -> bool:
    """Whether nothing more comes of a shard. A job of Slurm that did not say so may be in the queue again."""
    attempts = layout.attempts(shard.number)
    end = layout.read_end(attempts[-1]) if attempts else None
    return bool(shard.left) or (end is not None and (name == "local" or end[0] in (0, 2)))


def _make_way(layout: Layout, fresh: bool) -> None:
    """Moves what was measured from other sources, and anything under --fresh, to earlier/."""
    known = layout.folder / ENVIRONMENT
    told = read_json(known) if known.exists() else {}
    before = told.get("source_hash") if isinstance(told, dict) else None
    other = before is not None and before != source_hash()
    if not (fresh or other) or not (layout.folder / CLUSTER).exists():
        return
    aside = move_aside(layout.folder, {"run_id": "before"} | read_run(layout.folder, ("schema", "run_id")))
    say(f"{'measured from other sources' if other else 'asked for --fresh'}: the earlier record is in {aside}")


def _shards(
    request: Request, plan: Plan, device: Device, tasks: list[Task], here: int, folder: Path
) -> tuple[list[list[Task]], list[float]]:
    """The tasks of each shard, and about how long it takes."""
    earlier = [p.parent for p in sorted(folder.parent.glob(f"*/{RUN}"))] if folder.parent.is_dir() else []
    price = prices(plan, device, earlier)  # among them what the shards of this folder have come to
    cost = {case: price.seconds(case) for case in dict.fromkeys(case for _, case in tasks)}
    total = sum(cost[case] for _, case in tasks)
    wanted = here if request.backend == "local" else request.shards or ceil(total / SHARD_S)
    parts = split(tasks, wanted, cost.__getitem__)
    if request.shards and len(parts) < request.shards:
        say(f"--array {request.shards}: {len(parts)} is the most, since what is compared is measured in one place")
    return parts, [sum(cost[case] for _, case in part) for part in parts]


def _options(request: Request, device: Device, longest_s: float) -> Options:
    minutes = max(LEAST_MINUTES, ceil(SPARE * longest_s / 60) + LEAST_MINUTES // 2)
    return Options(
        partition=request.partition, at_most=request.at_most or Options.at_most, minutes=minutes,
        python=request.python or Options.python, sbatch=request.sbatch, needs_gpu=not device.is_cpu,
    )  # fmt: skip


def _write_down(
    layout: Layout, request: Request, plan: Plan, parts: Sequence[list[Task]], seconds: Sequence[float],
    local: Sequence[Device], options: Options, gpu: str, device: Device, repeats: int, strict: bool,
) -> Submission:  # fmt: skip
    """The submission, with its plan on disk and without jobs yet."""
    earlier = read_submissions(layout.folder)
    first = 1 + max((s.number for e in earlier for s in e.shards), default=-1)
    where: list[Any] = [d.index for d in local] or [None] * len(parts)
    shards = [
        ShardJobs(first + i, len(part), round(s, 1), at)
        for i, (part, s, at) in enumerate(zip(parts, seconds, where, strict=False))
    ]
    told = {k: v for k, v in vars(options).items() if k != "sbatch"}
    return Submission(
        layout.write_plan(len(earlier) + 1, plan), request.backend, command_line(), now(), socket.gethostname(), user(),
        gpu if request.backend == "slurm" else device.key, repeats, strict, told, dict(options.sbatch), shards,
    )  # fmt: skip


def _submit(layout: Layout, submission: Submission, there: Backend, options: Options, owner: Owner) -> None:
    """Submits the shards and writes their jobs down, without which they do nothing."""
    owner.beat()
    payloads = [Shard(layout.folder, s.number, s.gpu_index) for s in submission.shards]
    try:
        jobs = there.submit(payloads, options)
    except Unreachable as e:
        raise UserError(f"{layout.folder}: the jobs cannot be submitted now: {e}") from None
    for shard, job in zip(submission.shards, jobs, strict=True):
        shard.jobs.append(job)
    write_submissions(layout.folder, [*read_submissions(layout.folder), submission])
