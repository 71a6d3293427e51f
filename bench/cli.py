"""The command line: run, list, doctor. Light to import, so that --help and list answer at once."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench import words
from bench.errors import UserError, one_of

app = typer.Typer(
    help="Measure forward and backward of fine-tuning methods on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)

Sweep = Annotated[str, typer.Argument(help="A name in bench/sweeps, or the path of a sweep file.")]
Gpu = Annotated[str, typer.Option(help="auto, cpu, or the key of a board: a100, a6000, h100, h200 ...")]
Where = Annotated[
    list[str] | None,
    typer.Option(help="axis=value or axis=value,value: only the cases that match. May be given several times."),
]


@app.command()
def run(
    sweep: Sweep = "table1",
    gpu: Gpu = "auto",
    out: Annotated[Path | None, typer.Option(help="Results folder; default results/<key>/<sweep>.")] = None,
    where: Where = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew; the old record moves to earlier/.")] = False,
    retry: Annotated[str, typer.Option(help="Measure rows with these statuses again: oom,timeout,...")] = "",
    repeat: Annotated[int, typer.Option(min=1, help="Measure every case in so many fresh processes.")] = 1,
    strict: Annotated[bool, typer.Option("--strict", help="Noisy rows make the exit status 1.")] = False,
) -> None:
    """Measure a sweep. A run that was cut off goes on where it stopped.

    Exit status: 0 all measured or unsupported; 1 some row has another status; 2 the request cannot be carried out.
    """
    from bench.run.command import run_sweep

    statuses = frozenset(filter(None, (s.strip() for s in retry.split(","))))
    for status in sorted(statuses - set(words.Status)):
        raise UserError(one_of("--retry", status, words.Status))
    raise typer.Exit(run_sweep(sweep, gpu, out, tuple(where or ()), fresh, statuses, repeat, strict))


@app.command("list")
def list_cases(sweep: Sweep = "table1", gpu: Gpu = "auto", where: Where = None) -> None:
    """The cases that a run would measure, and what each needs at least."""
    from bench.listing import show_cases

    show_cases(sweep, gpu, tuple(where or ()))


@app.command()
def doctor() -> None:
    """What this machine can run, what is missing, and the command that mends it."""
    from bench.doctor import report

    raise typer.Exit(report())


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line; a UserError becomes one line on standard error and exit status 2."""
    try:
        app(arguments)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)
