"""Table 2 in a results folder: its files, its figure and its section of the report; or from real runs alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plots.data.load import Folder
from plots.data.panels import Table
from plots.data.results import Book
from plots.data.strategies import Timed, timed_cases
from plots.data.training_runs import Run
from plots.figures.steps import steps_figure
from plots.render.blocks import Block, Figure, Heading, Para, markdown
from plots.render.files import staged
from plots.tables.table2 import answer2, parts_table, table2
from plots.tables.table2_csv import tidy2, write_table2
from plots.text.captions import place

FILES = ("table2.md", "table2.csv")
HEADING = "Training time and accuracy"


@dataclass(frozen=True)
class Second:
    """What there is to say of Table 2."""

    said: str  # one plain sentence, or nothing where no ratio to LoRA could be formed
    timed: list[Timed]
    tables: list[Table]
    lines: list[dict[str, object]]  # of table2.csv

    def draw(self, folder: Folder, book: Book, where: Path) -> list[Figure]:
        """The figure of the steps, where any was timed."""
        return [steps_figure(folder, book, self.timed, where)] if any(t.step.time for t in self.timed) else []

    def write(self, head: Sequence[Block], where: Path) -> None:
        """table2.md and table2.csv. Raises OSError."""
        (where / FILES[0]).write_text(markdown([*head, *self.tables]), encoding="utf-8")
        write_table2(self.lines, where / FILES[1])

    def section(self, figures: Sequence[Figure]) -> list[Block]:
        return [Heading(HEADING), self.tables[0], *figures, *self.tables[1:]]


def make_second(folder: Folder | None, book: Book | None, runs: Sequence[Run], examples: int) -> Second | None:
    """Table 2 of a folder and of real runs; None where there is nothing of it."""
    timed = timed_cases(book) if book else []
    if not timed and not runs:
        return None
    tables = [table2(folder, book, runs, examples)]
    said = ""
    if folder is not None and book is not None and timed:
        tables.append(parts_table(folder, book, timed))
        where = f"{place(folder, 'model')}, {timed[0].case.precision}, clock {timed[0].step.clock}"
        said = answer2(book, timed, where)
    return Second(said, timed, tables, tidy2(book, runs, examples))


def write_alone(where: Path, runs: Sequence[Run], examples: int) -> list[Path]:
    """table2.md and table2.csv of real runs without a sweep. Raises OSError."""
    found = make_second(None, None, runs, examples)
    assert found is not None, "there is a run"
    where.mkdir(parents=True, exist_ok=True)
    with staged(where) as drafts:
        found.write(
            [Heading("Table 2", 1), Para("Real training runs; no sweep was given for projected times.")], drafts
        )
    return [where / name for name in FILES]
