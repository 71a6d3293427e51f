"""The commands for what several jobs or machines measure. Light to import, as all of the command line."""

from pathlib import Path
from typing import Annotated

import typer

from bench.usage import name_option, path_argument, path_option


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


def merge(
    folders: Annotated[
        list[Path], path_argument(help="Results folders; one that jobs were submitted from stands for all of them.")
    ],
    out: Annotated[
        Path | None,
        path_option(help="Where the merged record goes; default DIR itself for the jobs of one DIR, else"
                    " results/<key>/merged-<sweep>. Folders of several kinds of GPU: a folder in it for each."),
    ] = None,
    allow: Annotated[
        str | None,
        name_option(help="What may differ, joined by commas: commit, sweep, torch, triton, driver, threads."),
    ] = None,
) -> None:  # fmt: skip
    """Shards, machines and repeated runs into one results folder.

    A case that was measured several times on one kind of GPU has as many repeats, which give `compare` its verdicts.
    Rows of different GPUs never share a folder. Merging again changes nothing.

    Exit status: 0; 2 the folders cannot be merged, and nothing was written.
    """
    from bench.commands.merge import merge as merge_folders

    raise typer.Exit(merge_folders(folders, out, allow))
