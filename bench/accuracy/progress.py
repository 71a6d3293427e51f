"""What a person sees while an evaluation goes on: a bar with the time to go on a terminal, plain lines elsewhere."""

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from bench.runner.progress import duration


class Watch:
    """Progress over the items of an evaluation, on standard error. Use as a context."""

    def __init__(self, total: int, done: int, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._total, self._done, self._before = total, done, done
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed} of {task.total} items"))
        self._bar = Progress(*columns, TextColumn("{task.fields[left]}"), console=self._console, transient=True)
        self._task = self._bar.add_task("", total=total, completed=done, left="")

    def __enter__(self) -> "Watch":
        self._started = time.monotonic()
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, markup=False, soft_wrap=True)

    def begin(self, subject: str) -> None:
        self._bar.update(self._task, description=subject.replace("_", " "))

    def finish(self, items: int) -> None:
        self._done += items
        self._bar.update(self._task, completed=self._done, left=self.left())

    def left(self) -> str:
        """'3:20 to go', from what this process has done."""
        each = (time.monotonic() - self._started) / max(self._done - self._before, 1)
        return f"{duration(each * (self._total - self._done))} to go"

    def subject(self, subject: str, correct: int, items: int) -> None:
        """A subject is finished: one line for it."""
        share = f"{100 * correct / items:.1f} % of {items} items"
        self.say(f"[{self._done}/{self._total}] {subject}: {share} right  ({self.left()})")
