"""The options of `status`. Light to import, as all of the command line."""

from pathlib import Path
from typing import Annotated

import typer

from bench.usage import path_argument


def status(
    folder: Annotated[Path, path_argument(help="The folder that a `run --on` measures into.", metavar="DIR")],
    once: Annotated[bool, typer.Option("--once", help="Print how it stands, and do not attach.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="Cancel its jobs. What was measured stays.")] = False,
) -> None:
    """How a sweep on several GPUs stands: attaches to its jobs again, until all are over or Ctrl-C detaches.

    Exit status: as for `run` where it was watched to the end; 0 with --once; 2 nothing was submitted from DIR; 130
    detached.
    """
    from bench.commands.cluster.attach import show_status

    raise typer.Exit(show_status(folder, once, cancel))
