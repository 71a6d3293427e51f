"""The command line. Light to import: --help and list answer at once."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli_advise import advise
from bench.cli_cluster import merge, status
from bench.cli_predict import predict
from bench.cli_run import Gpu, Where, list_cases, run
from bench.cli_training import evaluate, train
from bench.errors import UserError
from bench.process import output_failure
from bench.terminal import say
from bench.usage import UsageError, name_argument, name_option, path_argument, path_option, sentence

app = typer.Typer(
    help="Measure forward and backward of fine-tuning methods on this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _version(asked: bool) -> None:
    if asked:
        from bench.commands.version import version_line

        print(version_line())
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="This version and those it runs with.")
    ] = False,
) -> None:
    """What goes before a command."""


Sweep = Annotated[str, name_argument(help="A name in bench/sweeps, or the path of a sweep file.")]


app.command()(run)
app.command("list")(list_cases)
app.command()(status)


@app.command("cross-check")
def cross_check(sweep: Sweep = "layers", gpu: Gpu = "auto", where: Where = None) -> None:
    """Time single layers with our GPU clocks, triton's do_bench and nvbench, and print the differences.

    Exit status: 0 compared; 2 the request cannot be carried out, for one because there is no GPU.
    """
    from bench.commands.cross_check import compare

    raise typer.Exit(compare(sweep, gpu, tuple(where or ())))


@app.command()
def compare(
    a: Annotated[Path, path_argument(help="A results folder; with --run, a checkout of this suite.")],
    b: Annotated[Path, path_argument(help="The other one. Verdicts say what it does relative to the first.")],
    sweep: Annotated[str | None, name_argument(help="With --run: what to measure; default table1.")] = None,
    run: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Measure both checkouts first, in turns, in so many processes each."),
    ] = None,
    out: Annotated[
        Path | None,
        path_option(help="With --run: where a/ and b/ go; default results/<key>/compare-<sweep>."),
    ] = None,
    gpu: Annotated[str | None, typer.Option(help="With --run: auto, cpu, or the key of a GPU.")] = None,
    where: Where = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="With --run: start anew; earlier rounds move to earlier/.")
    ] = False,
    fail: Annotated[
        str | None,
        typer.Option(help="Exit status 1 where a verdict is SLOWER (slower), or SLOWER by 5 % or more (slower:5%)."),
    ] = None,
    format: Annotated[
        str, typer.Option(help="Of standard output: text; json; github, Markdown for a summary or comment; junit.")
    ] = "text",
    json: Annotated[Path | None, path_option(help="Write the comparison as JSON to this file, too.")] = None,
    fail_on_slower: Annotated[
        bool, typer.Option("--fail-on-slower", hidden=True, help="The older word for --fail slower.")
    ] = False,
) -> None:
    """Two runs side by side: FASTER, SLOWER, SAME or UNCLEAR, row by row.

    A verdict needs 5 fresh processes a side, measured in turns, as --run 5 does it. Exit status: 0; 1 a row is as slow
    as --fail says; 2 the two cannot be compared.
    """
    from bench.commands.compare import compare as compare_runs

    limit = "slower" if fail_on_slower else fail
    raise typer.Exit(compare_runs(a, b, sweep, run, out, gpu, tuple(where or ()), fresh, limit, format, json))


@app.command()
def spread(
    folders: Annotated[list[Path], path_argument(help="Results folders of one sweep, measured one after the other.")],
) -> None:
    """How far the ratios of several runs lie apart, and how often the interval of one run holds what the others found.

    Exit status: 0; 2 the folders have no ratio in common.
    """
    from bench.commands.spread import show

    raise typer.Exit(show(folders))


app.command()(merge)


@app.command()
def why(
    folder: Annotated[
        Path | None,
        path_argument(help="A folder that `bench run` has measured here; default results/<key>/table1.", metavar="DIR"),
    ] = None,
    model: Annotated[str | None, name_option(help="Only these of the models measured, joined by commas.")] = None,
    method: Annotated[str | None, name_option(help="Only these methods; Full-FT comes with each.")] = None,
    impl: Annotated[str | None, name_option(help="Only these implementations.")] = None,
    gpu: Annotated[str, typer.Option(help="Without DIR: the folder of this device, as for `bench run`.")] = "auto",
    trace: Annotated[
        bool, typer.Option("--trace", help="Keep a Chrome trace of each case in DIR/traces, for ui.perfetto.dev.")
    ] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Profile again what causes.csv has already.")] = False,
) -> None:
    """What makes a method slower or faster than Full-FT: each ratio by its causes, in a sentence.

    What causes.csv does not have yet is profiled first, in processes of its own. Nothing is timed again.

    Exit status: 0; 1 a case could not be profiled; 2 the request cannot be carried out; 130 interrupted, to go on with
    the same command.
    """
    from bench.commands.why import Only, tell_why

    raise typer.Exit(tell_why(folder, Only(model, method, impl), gpu, trace, fresh))


app.command()(advise)
app.command()(predict)
app.command()(train)
app.command()(evaluate)


@app.command()
def precompile(
    sweeps: Annotated[list[str], name_argument(help="Names in bench/sweeps, or paths of sweep files.")],
    as_campaign: Annotated[
        bool, typer.Option("--as-campaign", help="Names are stages: only what the campaign measures of each sweep.")
    ] = False,
) -> None:
    """Compile the Triton kernels of sweeps beforehand, in several processes. A run then does not wait for them.

    Exit status: 0 compiled; 1 a layer failed; 2 the request cannot be carried out.
    """
    from bench.commands.precompile import precompile as compile_sweeps

    raise typer.Exit(compile_sweeps(sweeps, as_campaign=as_campaign))


@app.command()
def campaign(
    gpu: Gpu = "auto",
    time: Annotated[
        str | None, typer.Option(help="Stop after this long: 30m, 1h, 900s. Default: go to the end.")
    ] = None,
    stages: Annotated[
        str | None,
        typer.Option(
            help="Joined by commas: gpu-tests, precompile, table1, tune, table1-tuned, table2, peers, lengths, report,"
            " which is the default; of these sweeps it measures what matters most. Any other sweep is measured whole."
        ),
    ] = None,
    out: Annotated[Path | None, path_option(help="Results folder. Default: results/<key>.")] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Forget which stages are done. The rows of the sweeps stay.")
    ] = False,
    save: Annotated[
        Path | None,
        path_option(
            help="A folder that gets the results as <key>.tar.gz, after each stage and every 40 s: under 16 MiB, with"
            " at most 200 raw samples of a series; what it has no room for is said, the largest logs first."
        ),
    ] = None,
) -> None:
    """Everything worth measuring on a device, the most important first. The same command goes on where it stopped.

    Tables are drawn after each stage. GPU tests that fail stop it: the last line says how to go on without them.

    Exit status: 0 all done; 1 a stage failed; 2 the request cannot be carried out; 3 the time is over, and the same
    command goes on.
    """
    from bench.commands.campaign import campaign as run_campaign

    names = tuple(filter(None, (s.strip() for s in (stages or "").split(","))))
    raise typer.Exit(run_campaign(gpu, time, names, out, fresh, save))


@app.command()
def doctor() -> None:
    """What this machine can run, what is missing, and the command that mends it."""
    from bench.commands.doctor import report

    raise typer.Exit(report())


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and ends the process. What a person got wrong becomes one line on standard error and exit
    status 2, and so does output that was asked for and could not be printed."""
    try:
        status = app(arguments, standalone_mode=False)
        if failed := output_failure():
            raise UserError(f"standard output: {failed.strerror}; not all was printed")
    except UserError as e:
        say(f"error: {e}")
        status = 2
    except UsageError as e:
        if told := sentence(e):
            say(told)
        status = 2
    sys.exit(status or 0)
