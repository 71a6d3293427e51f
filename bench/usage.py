"""Kinds of arguments and options that name something, and a wrong use of the command line as one line."""

from functools import partial
from pathlib import Path
from typing import Any

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
