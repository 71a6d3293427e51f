"""What commands print: tables on standard output, lines and progress for people on standard error."""

import os
import re
import sys
import time
from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.errors import UserError, one_line, short
from bench.process import output_failure


def say(text: str) -> None:
    """A line for the person who waits, on standard error: standard output is for what scripts read."""
    print(one_line(text), file=sys.stderr, flush=True)


def print_path(path: Path) -> None:
    """Where the results are, on standard output: for scripts the very bytes of the path, on a terminal what it may
    show. What counts is on disk: that nobody could take the path is no failure."""
    if sys.stdout.isatty():
        print(one_line(str(path)))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(path) + b"\n")
    output_failure(spare=True)


def shown(text: str, style: str = "") -> Text:
    """Text from anywhere, for a line or a cell of rich: markup in it is not obeyed, and control characters are not."""
    return Text(one_line(text), style)


class Output(Console):
    """A console whose lines are plain text: see `shown`."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(shown(o) if isinstance(o, str) else o for o in objects), **options)


def output(to_stderr: bool = False) -> Output:
    """Standard output. A pipe has no width to fit into: nothing is wrapped or cut there."""
    console = Output(highlight=False, stderr=to_stderr)
    if not console.is_terminal:
        console.width = 400
    return console


class PlainTable(Table):
    """A table whose cells are plain text: see `shown`."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        super().add_row(*(shown(c) if isinstance(c, str) else c for c in cells), **options)


def plain_table(columns: Iterable[str], right: Container[str] = (), wrap: Container[str] = ()) -> PlainTable:
    """A table without lines. right: columns of numbers; wrap: columns that may take several lines."""
    table = PlainTable(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            shown(column),
            justify="right" if column in right else "left",
            no_wrap=column not in wrap,
            overflow="fold",
        )
    return table


def duration(seconds: float) -> str:
    """3 s, 2:05 or 1:02:05."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    return f"{s // 3600}:{s // 60 % 60:02}:{s % 60:02}" if s >= 3600 else f"{s // 60}:{s % 60:02}"


LONGEST_S = 1_000_000  # that a command waits: eleven days


def seconds_of(flag: str, text: str) -> float:
    """'18m', '90s', '1h' or plain seconds, up to eleven days. Raises UserError, which names the flag."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|)", text)
    value = float(found[1]) * {"s": 1, "": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if not value:
        raise UserError(f"{flag}: {short(text)} is no duration. Write it as 540, 540s, 9m or 1h.")
    if value > LONGEST_S:
        raise UserError(f"{flag}: {short(text)} is {value:,.0f} s. At most {LONGEST_S:,} s, which is 277h.")
    return value


class Progress:
    """How far a command is, and when it will be done. Use as a context; what is redrawn in place is up to those who
    inherit."""

    def __init__(self, total: int, done: int = 0, console: Console | None = None) -> None:
        """done: of the total, by an earlier process."""
        self.console = console or Output(stderr=True, highlight=False)
        self.total, self.done, self._before = total, done, done
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        if self.console.is_terminal:
            self.start_drawing()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self.stop_drawing()

    def start_drawing(self) -> None:
        """On a terminal, when the context begins."""

    def stop_drawing(self) -> None:
        """On a terminal, when it ends."""

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(shown(text), soft_wrap=True)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def left(self) -> str:
        """'3:20 to go', from what this process has done."""
        here = self.done - self._before
        return f"{duration(self.elapsed_s / here * (self.total - self.done)) if here else 'unknown time'} to go"
