"""What a person sees while an evaluation goes on: a bar with the time to go on a terminal, plain lines elsewhere."""

from rich import progress
from rich.console import Console

from bench.errors import one_line
from bench.terminal import Progress


class Watch(Progress):
    """Progress over the items of an evaluation."""

    def __init__(self, total: int, done: int, console: Console | None = None) -> None:
        super().__init__(total, done, console)
        texts = ("{task.description}", "{task.completed} of {task.total} items", "{task.fields[left]}")
        name, count, left = (progress.TextColumn(text, markup=False) for text in texts)
        self._bar = progress.Progress(name, progress.BarColumn(), count, left, console=self.console, transient=True)
        self._task = self._bar.add_task("", total=total, completed=done, left="")

    def start_drawing(self) -> None:
        self._bar.start()

    def stop_drawing(self) -> None:
        self._bar.stop()

    def begin(self, subject: str) -> None:
        self._bar.update(self._task, description=one_line(subject.replace("_", " ")))

    def finish(self, items: int) -> None:
        self.done += items
        self._bar.update(self._task, completed=self.done, left=self.left())

    def subject(self, subject: str, correct: int, items: int) -> None:
        """A subject is finished: one line for it."""
        share = f"{100 * correct / items:.1f} % of {items} items"
        self.say(f"[{self.done}/{self.total}] {subject}: {share} right  ({self.left()})")
