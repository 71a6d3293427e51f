"""What commands print: tables on standard output, lines and progress for people on standard error."""

import re
import sys
import time
from collections.abc import Container, Iterable
from typing import Self

from rich.console import Console
from rich.table import Table

from bench.errors import UserError, short


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
        self.console = console or Console(stderr=True, highlight=False)
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
        self.console.print(text, markup=False, soft_wrap=True)

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def left(self) -> str:
        """'3:20 to go', from what this process has done."""
        here = self.done - self._before
        return f"{duration(self.elapsed_s / here * (self.total - self.done)) if here else 'unknown time'} to go"
