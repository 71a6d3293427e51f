"""The options of `predict`. Light to import, as all of the command line."""

from pathlib import Path
from typing import Annotated

import typer

from bench.errors import UserError
from bench.usage import Batch, Impl, Method, ModelOption, Precision, Rank, Seq, name_argument, name_option, path_option


def predict(
    sweep: Annotated[
        str | None, name_argument(help="A name in bench/sweeps, or the path of a sweep file; default table1.")
    ] = None,
    gpu: Annotated[
        str | None, name_option(help="Boards, joined by commas: a100,h100,rtx5090 ...; or cpu. a100: SXM4, 80 GB.")
    ] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="axis=value or axis=value,value: only the cases that match.")
    ] = None,
    model: ModelOption = None,
    batch: Batch = None,
    seq: Seq = None,
    method: Method = None,
    impl: Impl = None,
    rank: Rank = None,
    precision: Precision = None,
    out: Annotated[
        Path | None, path_option(help="Where predictions.csv goes; default results/predicted/<sweep>-<boards>.")
    ] = None,
    host_us: Annotated[
        str | None,
        name_option(
            "--host-us",
            help="What an operator costs the host, in us: 12.5, or forward,backward. Default: measured here.",
        ),
    ] = None,
    clock: Annotated[
        str | None, name_option(help="graph: the GPU's time alone; eager: with the host. Default: both.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Trace anew what was traced before.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Compare predictions with everything measured that is at hand.")
    ] = False,
    published: Annotated[
        Path | None, path_option(help="With --check: the folder of published timings.", metavar="DIR")
    ] = None,
) -> None:
    """What the cases of a sweep would take on a GPU that is not here, with intervals. Nothing is measured of them.

    Exit status: 0 predicted; 2 the request cannot be carried out; 130 interrupted, and what was traced is kept.
    """
    from bench.commands.predict.request import Request

    if check:
        others = {
            "SWEEP": sweep, "--gpu": gpu, "--where": where, "--model": model, "--batch": batch, "--seq": seq,
            "--method": method, "--impl": impl, "--rank": rank, "--precision": precision, "--host-us": host_us,
            "--clock": clock, "--fresh": fresh,
        }  # fmt: skip
        if given := [name for name, value in others.items() if value]:
            raise UserError(f"--check: found {', '.join(given)} beside it. It takes --published and --out alone.")
        from bench.commands.predict.check import check as check_predictions

        raise typer.Exit(check_predictions(published, out))
    if published:
        raise UserError(f"--published {published}: this goes with --check alone.")
    if gpu is None:
        from bench.predict.boards import boards

        raise UserError(f"--gpu: name the boards to predict for, joined by commas. Valid: {', '.join(boards())}, cpu.")
    from bench.commands.predict.command import predict as predict_cases

    request = Request(
        gpu, sweep, model, batch, seq, method, impl, rank, precision, tuple(where or ()), out, host_us, clock, fresh
    )
    raise typer.Exit(predict_cases(request))
