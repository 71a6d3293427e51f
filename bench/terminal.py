"""What commands print: tables on standard output, lines for people on standard error."""

import sys
from collections.abc import Container, Iterable

from rich.console import Console
from rich.table import Table


def say(text: str) -> None:
    """A line for the person who waits, on standard error: standard output is for what scripts read."""
    print(text, file=sys.stderr, flush=True)


def output() -> Console:
    """Standard output. A pipe has no width to fit into: nothing is wrapped or cut there."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 400
    return console


def plain_table(columns: Iterable[str], right: Container[str] = (), wrap: Container[str] = ()) -> Table:
    """A table without lines. right: columns of numbers; wrap: columns that may take several lines."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column, justify="right" if column in right else "left", no_wrap=column not in wrap, overflow="fold"
        )
    return table
