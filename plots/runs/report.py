"""The page of trainings without a sweep: report.md, report.html, both figures, and Table 2."""

from collections.abc import Sequence
from pathlib import Path

from bench.errors import UserError
from bench.reading import read_text
from plots.data.labels import distinct
from plots.data.training_runs import Run
from plots.render.blocks import Block, Heading, Items, Para
from plots.render.files import staged, write_csv
from plots.render.markdown import markdown
from plots.render.page import page
from plots.runs.figures import ACCURACY, LOSS, accuracy_figure, loss_figure
from plots.runs.tables import runs_table
from plots.runs.text import READING, answers, notices, sources
from plots.tables import table2_csv
from plots.tables.table2 import table2
from plots.tables.table2_csv import table2_rows

TABLE2, REPORT = ("table2.md", "table2.csv"), ("report.md", "report.html")
TITLE = "Training runs: "


def draw_runs(where: Path, runs: Sequence[Run], examples: int) -> tuple[list[Path], str]:
    """Writes all of it; returns the paths and the answer. Raises OSError; UserError where the folder holds a report of
    anything else."""
    _check(where)
    where.mkdir(parents=True, exist_ok=True)
    title = TITLE + ", ".join(distinct(run.subject for run in runs))
    second = table2(None, [], runs, examples)
    said = answers(runs)
    with staged(where) as drafts:
        shown = {LOSS: loss_figure(runs, drafts / LOSS), ACCURACY: accuracy_figure(runs, drafts / ACCURACY)}
        figures = [figure for figure in shown.values() if figure]
        body: list[Block] = [Heading(title, 1), *(Para(words, "notice") for words in notices(runs))]
        body += [Heading("Answer"), *(Para(words, "answer") for words in said), *figures[::-1]]
        body += [Heading("Every run"), runs_table(runs), second, Heading("How to read it"), Items(READING)]
        body += [Heading("Where it comes from"), Items(tuple(sources(runs)))]
        head: list[Block] = [Heading("Table 2", 1), Para("Real training runs; no sweep was given for projected times.")]
        _write(drafts / TABLE2[0], markdown([*head, second]))
        write_csv(table2_rows([], runs, examples), drafts / TABLE2[1], table2_csv.INTEGERS)
        _write(drafts / REPORT[0], markdown(body))
        _write(drafts / REPORT[1], page(body, title, drafts))
    names = [*TABLE2, *REPORT, *(f"{figure.stem}.{kind}" for figure in figures for kind in ("png", "svg"))]
    for old in {f"{stem}.{kind}" for stem in shown for kind in ("png", "svg")} - {*names}:
        (where / old).unlink(missing_ok=True)  # of an earlier drawing, which the runs no longer support
    return [where / name for name in names], "\n".join(said)


def _check(where: Path) -> None:
    there = where / REPORT[0]
    if there.exists() and not read_text(there).startswith(f"# {TITLE}"):
        raise UserError(f"{there}: this is no report of trainings. Say with --out where theirs goes.")


def _write(path: Path, words: str) -> None:
    path.write_text(words, encoding="utf-8")
