"""The command line: run, list, compare, cross-check, doctor. Light to import: --help and list answer at once."""

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


@app.command("cross-check")
def cross_check(sweep: Sweep = "layers", gpu: Gpu = "auto", where: Where = None) -> None:
    """Time single layers with our GPU clocks, triton's do_bench and nvbench, and print the differences.

    Exit status: 0 compared; 2 the request cannot be carried out, for one because there is no GPU.
    """
    from bench.crosscheck import compare

    raise typer.Exit(compare(sweep, gpu, tuple(where or ())))


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="A results folder; with --run, a checkout of this suite.")],
    b: Annotated[Path, typer.Argument(help="The other one. Verdicts say what it does relative to the first.")],
    sweep: Annotated[str | None, typer.Argument(help="With --run: what to measure; default table1.")] = None,
    run: Annotated[
        int | None, typer.Option(min=1, help="Measure both checkouts first, in turns, in so many fresh processes each.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --run: where a/ and b/ go; default results/<key>/compare-<sweep>.")
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="With --run: auto, cpu, or the key of a board.")] = None,
    where: Where = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="With --run: start anew; earlier rounds move to earlier/.")
    ] = False,
    fail_on_slower: Annotated[
        bool, typer.Option("--fail-on-slower", help="Exit status 1 where a verdict is SLOWER.")
    ] = False,
    json: Annotated[Path | None, typer.Option(help="Write the comparison to this file, too.")] = None,
) -> None:
    """Two runs side by side: FASTER, SLOWER, SAME or UNCLEAR, row by row.

    A verdict needs 5 fresh processes a side, measured in turns, as --run 5 does it. Exit status: 0; 1 a verdict is
    SLOWER and --fail-on-slower was given; 2 the two cannot be compared.
    """
    from bench.compare.command import compare as compare_runs

    raise typer.Exit(compare_runs(a, b, sweep, run, out, gpu, tuple(where or ()), fresh, fail_on_slower, json))


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
