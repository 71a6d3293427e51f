"""The options of `run` and `list`. Light to import, as all of the command line."""

from pathlib import Path
from typing import Annotated

import typer

from bench.case import schema
from bench.errors import UserError, one_of
from bench.usage import (
    Batch,
    Checkpointing,
    Compile,
    Dropout,
    Impl,
    Layers,
    Level,
    Method,
    ModelOption,
    Optimizer,
    Precision,
    Rank,
    Seq,
    Targets,
    name_argument,
    name_option,
    path_option,
)

Sweep = Annotated[
    str | None, name_argument(help="A name in bench/sweeps, or the path of a sweep file; default table1.")
]
Gpu = Annotated[str, typer.Option(help="auto, cpu, or the key of a GPU: a100, a6000, h100, h200 ...")]
Where = Annotated[
    list[str] | None,
    typer.Option(help="axis=value or axis=value,value: only the cases that match. May be given several times."),
]


def run(
    sweep: Sweep = None,
    gpu: Gpu = "auto",
    out: Annotated[Path | None, path_option(help="Results folder; default results/<key>/<sweep or model>.")] = None,
    where: Where = None,
    model: ModelOption = None,
    batch: Batch = None,
    seq: Seq = None,
    rank: Rank = None,
    targets: Targets = None,
    dropout: Dropout = None,
    precision: Precision = None,
    trainable_layers: Layers = None,
    method: Method = None,
    impl: Impl = None,
    gradient_checkpointing: Checkpointing = None,
    optimizer: Optimizer = None,
    compile: Compile = None,
    level: Level = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew; the old record moves to earlier/.")] = False,
    retry: Annotated[str, typer.Option(help="Measure rows with these statuses again: oom,timeout,...")] = "",
    repeat: Annotated[int, typer.Option(min=1, max=10_000, help="Measure every case in so many fresh processes.")] = 1,
    strict: Annotated[bool, typer.Option("--strict", help="Noisy rows make the exit status 1.")] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Threads that the CPU computes with. Default without a GPU: 1.")
    ] = None,
    wait_quiet: Annotated[
        str | None, typer.Option("--wait-quiet", help="Wait so long at most for the machine to come to rest: 10m, 90s.")
    ] = None,
    on: Annotated[
        str | None, name_option(help="slurm: split the sweep over jobs; local: over all GPUs of this machine.")
    ] = None,
    array: Annotated[
        str | None, name_option(help="With --on slurm: how many shards; 64%8: at most 8 at once. Default: of 30 min.")
    ] = None,
    partition: Annotated[str | None, name_option(help="With --on slurm: the partition.")] = None,
    gres: Annotated[str | None, name_option(help="With --on slurm: what gives a job its GPU. Default: gpu:1.")] = None,
    exclusive: Annotated[
        bool, typer.Option("--exclusive", help="With --on slurm: a whole node for each job. Default without a GPU.")
    ] = False,
    slurm: Annotated[
        list[str] | None, name_option(help="With --on slurm: any other option of sbatch: account=x, time=4:00:00.")
    ] = None,
    python: Annotated[str | None, name_option(help="With --on: what starts Python on the nodes.")] = None,
) -> None:
    """Measure a sweep, or one's own model with --model. A run that was cut off goes on where it stopped.

    With --on it is split into shards, each a job; Ctrl-C detaches, and `status` attaches again.

    Exit status: 0 all measured or unsupported; 1 some row has another status; 2 the request cannot be carried out.
    """
    from bench.commands.cluster.request import request_of
    from bench.commands.run import run_sweep
    from bench.sweeps.of_model import asked_for
    from bench.terminal import seconds_of

    statuses = frozenset(filter(None, (s.strip() for s in retry.split(","))))
    for status in sorted(statuses - set(schema.Status)):
        raise UserError(one_of("--retry", status, schema.Status))
    quiet_s = None if wait_quiet is None else seconds_of("--wait-quiet", wait_quiet)
    asked = asked_for(
        sweep, model, batch=batch, seq=seq, rank=rank, targets=targets, dropout=dropout, precision=precision,
        trainable_layers=trainable_layers, method=method, impl=impl, gradient_checkpointing=gradient_checkpointing,
        optimizer=optimizer, compile=compile, level=level,
    )  # fmt: skip
    how = (gpu, out, tuple(where or ()), fresh, statuses, repeat, strict, threads, quiet_s)
    request = request_of(on, array, partition, gres, exclusive, tuple(slurm or ()), python)
    if request is None:
        raise typer.Exit(run_sweep(asked, *how))
    from bench.commands.cluster.submit import run_on

    raise typer.Exit(run_on(request, asked, *how))


def list_cases(
    sweep: Sweep = None,
    gpu: Gpu = "auto",
    where: Where = None,
    model: ModelOption = None,
    batch: Batch = None,
    seq: Seq = None,
    rank: Rank = None,
    targets: Targets = None,
    dropout: Dropout = None,
    precision: Precision = None,
    trainable_layers: Layers = None,
    method: Method = None,
    impl: Impl = None,
    gradient_checkpointing: Checkpointing = None,
    optimizer: Optimizer = None,
    compile: Compile = None,
    level: Level = None,
) -> None:
    """The cases that a run would measure, and what each needs at least. --gpu may name a GPU that is not here."""
    from bench.commands.list import show_cases
    from bench.sweeps.of_model import asked_for

    asked = asked_for(
        sweep, model, batch=batch, seq=seq, rank=rank, targets=targets, dropout=dropout, precision=precision,
        trainable_layers=trainable_layers, method=method, impl=impl, gradient_checkpointing=gradient_checkpointing,
        optimizer=optimizer, compile=compile, level=level,
    )  # fmt: skip
    show_cases(asked, gpu, tuple(where or ()))
