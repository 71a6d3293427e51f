"""The commands for what was measured by several jobs or on several machines. Light to import, as all of the command
line."""

from pathlib import Path
from typing import Annotated

import typer

from bench.usage import name_option, path_argument, path_option


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
