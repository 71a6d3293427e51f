"""Kinds of arguments and options that name something, and a wrong use of the command line as one line."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from bench.again import given
from bench.errors import EMPTY, short

UsageError: type[Exception] = typer.BadParameter.__bases__[0]  # typer's own, which it does not export


def _named(text: str) -> str:
    if not text.strip():
        raise typer.BadParameter(EMPTY)
    return text


def _path(text: str) -> Path:
    return Path(_named(text))


# What may name a file: an empty text would silently be the current folder.
path_argument, path_option = partial(typer.Argument, parser=_path), partial(typer.Option, parser=_path)
name_argument, name_option = partial(typer.Argument, parser=_named), partial(typer.Option, parser=_named)


def sentence(e: Any) -> str:
    """What a UsageError comes to; nothing where typer has shown the help instead."""
    text = e.format_message()
    found = given(*e.param.opts) if getattr(e, "param", None) else None
    told = "" if found is None else f" Found: {short(found)}."
    text += "" if not text or text[-1] in ".?" else "."
    return text and f"error: {text}{told} ({getattr(e.ctx, 'command_path', 'python -m bench')} --help)"


# The options that say what to run of one's own model. bench.sweeps.of_model reads them.
ModelOption = Annotated[
    str | None,
    name_option(
        "--model",
        metavar="MODEL",
        help="This model under the methods of the sweep. A name of bench/case/models.yaml, a config.json"
        " or its folder, or an id on the Hugging Face Hub.",
    ),
]
Batch = Annotated[str | None, name_option(help="With --model: sequences, joined by commas.")]
Seq = Annotated[str | None, name_option(help="With --model: tokens in a sequence, joined by commas.")]
Rank = Annotated[
    int | None, typer.Option(min=1, max=2**31 - 1, help="With --model: of the adapters; alpha stays as it is.")
]
Targets = Annotated[str | None, name_option(help="With --model: the layers adapted: all-linear, or q_proj,v_proj ...")]
Dropout = Annotated[float | None, typer.Option(help="With --model: of the input of LoRA's branch, from 0 to below 1.")]
Precision = Annotated[str | None, name_option(help="With --model: bf16, amp-fp16 ..., joined by commas.")]
Layers = Annotated[
    str | None,
    name_option("--trainable-layers", help="With --model: all, upper-1/2, every-2nd, lisa-1, a count ...; by commas."),
]
Method = Annotated[str | None, name_option(help="With --model: only these methods; Full-FT comes with each.")]
Impl = Annotated[str | None, name_option(help="With --model: these implementations of the adapters.")]
Checkpointing = Annotated[
    str | None, name_option("--gradient-checkpointing", help="With --model: none, full, selective, joined by commas.")
]
Optimizer = Annotated[
    str | None, name_option(help="With --model: of pass step: adamw, adamw-8bit, sgd ..., joined by commas.")
]
Compile = Annotated[
    str | None, name_option(help="With --model: mode of torch.compile: none, default ..., joined by commas.")
]
Level = Annotated[
    str | None, name_option(help="With --model: block or model. Default: the model on a GPU, one block on a CPU.")
]
