"""The options of `advise`. Light to import, as all of the command line."""

from pathlib import Path
from typing import Annotated

import typer

from bench.usage import name_option, path_option


def advise(
    model: Annotated[str, name_option(help="A model's name, a Hub id, or the path of a config.json.")],
    batch: Annotated[str | None, name_option(help="Sequences; default: the sweep's.")] = None,
    seq: Annotated[str | None, name_option(help="Tokens in a sequence; default: the sweep's.")] = None,
    rank: Annotated[
        int | None, typer.Option(min=1, max=2**31 - 1, help="Of all adapters; default: 8, PaCA 16.")
    ] = None,
    targets: Annotated[str | None, name_option(help="Layers to adapt, joined by commas; default all-linear.")] = None,
    dropout: Annotated[float | None, typer.Option(min=0, max=0.999, help="Of LoRA's branch; default 0.1.")] = None,
    precision: Annotated[str | None, name_option(help="bf16, fp16, fp32, amp-bf16 or amp-fp16.")] = None,
    level: Annotated[
        str | None, name_option(help="model or block; default: the whole model on a GPU, one block on a CPU.")
    ] = None,
    gpu: Annotated[
        str, typer.Option(help="auto, cpu, or the key of a GPU. One that is not here is predicted, not measured.")
    ] = "auto",
    memory: Annotated[
        str | None, name_option(help="What training may take of the device's memory: 24GiB. Default: all of it.")
    ] = None,
    time: Annotated[str, name_option(help="To measure in, at most: 5m, 300s.")] = "5m",
    price: Annotated[str | None, name_option(help="Of an hour on the device, in any currency: 1.80.")] = None,
    step_ms: Annotated[
        str | None,
        name_option("--step-ms", help="Choose layers: as many top blocks as train within this time of a step, in ms."),
    ] = None,
    trained: Annotated[
        str | None, name_option(help="Choose layers: as many top blocks as train at most so many values: 20M.")
    ] = None,
    out: Annotated[
        Path | None, path_option(help="Folder of what is measured; default results/<key>/<model>-advise.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure anew what is in the record.")] = False,
) -> None:
    """Which way of training to use for a model: at most eight ranked lines, and a sentence.

    Measured is what the record does not have, the most informative first; for a GPU that is not here all is predicted,
    and says so. Exit status: 0 an answer; 1 none, because the intervals are too wide, nothing fits or the time was
    over; 2 the request cannot be carried out; 130 interrupted, to go on with the same command.
    """
    from bench.commands.advise import advise as advise_on
    from bench.commands.advise.request import SWEEP, Asked, bytes_of, count_of, number_of
    from bench.sweeps.of_model import model_request
    from bench.terminal import seconds_of

    request = model_request(
        model, SWEEP, batch=batch, seq=seq, rank=rank, targets=targets, dropout=dropout, precision=precision,
        level=level,
    )  # fmt: skip
    assert request is not None
    asked = Asked(
        request,
        gpu,
        None if memory is None else bytes_of("--memory", memory),
        seconds_of("--time", time),
        None if price is None else number_of("--price", price, "price of an hour"),
        None if step_ms is None else number_of("--step-ms", step_ms, "time in ms"),
        None if trained is None else count_of("--trained", trained),
        out,
        fresh,
    )
    raise typer.Exit(advise_on(asked))
