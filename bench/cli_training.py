"""The options of `train` and `evaluate`. Light to import, as all of the command line."""

from pathlib import Path
from typing import Annotated

import typer

from bench.usage import name_argument, name_option, path_option

COUNT = 2**31 - 1  # what a count may be where a larger one could not be handed on


def train(
    strategy: Annotated[str, name_option(help="A name in bench/train/strategies, or the path of a strategy file.")],
    model: Annotated[str, name_option(help="A checkpoint folder, or a Hub id.")],
    out: Annotated[Path, path_option(help="The folder of this training run.")],
    data: Annotated[
        str | None, name_option(help="A JSONL file, a folder with train.jsonl, or the id of a Hub dataset.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, max=COUNT, help="Passes over the data. Default: the strategy's.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(min=1e-12, max=1e3, help="Peak learning rate. Default: the strategy's.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, max=COUNT, help="Examples per process and micro-step. Default: the strategy's.")
    ] = None,
    accumulation: Annotated[
        int | None, typer.Option(min=1, max=COUNT, help="Micro-steps per optimizer step. Default: the strategy's.")
    ] = None,
    warmup_steps: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=COUNT,
            help="Steps in which the learning rate rises from 0 to its peak. Default: the strategy's (its key"
            " warmup_steps; the paper's 100).",
        ),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=COUNT,
            help="Longest example in tokens; longer ones lose their beginning. Default: the strategy's.",
        ),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="amp-fp16, amp-bf16, bf16 or fp32. Default: the strategy's.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=2**32 - 1, help="Seed of adapters, columns, order of examples and dropout.")
    ] = 0,
    impl: Annotated[
        str,
        typer.Option(help="How LoRA, DoRA and LoRA-FA are computed: peft, triton (fused), or auto: triton on a GPU."),
    ] = "auto",
    save: Annotated[
        str, typer.Option(help="delta: save what was trained; full: save a whole checkpoint with it merged in.")
    ] = "delta",
    checkpoint_every: Annotated[int, typer.Option(min=1, max=COUNT, help="Optimizer steps between checkpoints.")] = 50,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew; the old run moves to earlier/.")] = False,
) -> None:
    """Fine-tune a checkpoint for real, by any method: each has a strategy, as those of the paper's Table 3. A run that
    was cut off goes on.

    For several GPUs: torchrun --nproc-per-node N -m bench train ... Exit status: 0 trained; 2 the request cannot be
    carried out; 130 interrupted, to go on with the same command.
    """
    from bench.commands.train import train as train_model
    from bench.train.plan import Request

    request = Request(
        strategy, model, data, out, epochs, learning_rate, batch, accumulation, max_length, precision, seed,
        checkpoint_every, impl, save, device, fresh, warmup_steps,
    )  # fmt: skip
    raise typer.Exit(train_model(request))


def evaluate(
    source: Annotated[str, name_argument(help="A folder of bench train, a checkpoint folder, or a Hub id.")],
    data: Annotated[
        str, name_option(help="Folder with test.jsonl (and dev.jsonl for --shots), one JSONL file, or a Hub id.")
    ] = "cais/mmlu",
    shots: Annotated[int, typer.Option(min=0, max=1000, help="Solved examples before each question; MMLU has 5.")] = 5,
    batch: Annotated[int, typer.Option(min=1, max=COUNT, help="Prompts per forward pass.")] = 8,
    limit: Annotated[int | None, typer.Option(min=1, max=COUNT, help="Only so many items of each subject.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    out: Annotated[Path | None, path_option(help="Where accuracy.json goes; default: a trained folder.")] = None,
) -> None:
    """MMLU accuracy by category, as in the paper's Table 2. An evaluation that was cut off goes on where it stopped.

    Exit status: 0 evaluated; 2 the request cannot be carried out; 130 interrupted.
    """
    from bench.commands.evaluate import evaluate as evaluate_model

    raise typer.Exit(evaluate_model(source, data, shots, batch, limit, device, out))
