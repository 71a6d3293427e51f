"""The report of a folder of predictions, predicted.md; and their table between two comments of a page."""

from pathlib import Path

from bench.errors import UserError
from bench.files import replace_file
from bench.reading import read_text
from plots.data.predictions import Predictions
from plots.figures.predicted import predicted_figure
from plots.render.blocks import Block, Heading, Para
from plots.render.files import staged
from plots.render.markdown import markdown
from plots.tables.predicted import board_tables, comparison_table

REPORT, FIGURE = "predicted.md", "predicted_ratio"
BEGIN, END = "<!-- predicted table 1 -->", "<!-- end -->"


def draw_predictions(found: Predictions) -> list[Path]:
    """Writes predicted.md and a figure for each clock into the folder. Raises OSError."""
    with staged(found.path) as drafts:
        figures = []
        for i, clock in enumerate(found.clocks):
            stem = FIGURE if i == 0 else f"{FIGURE}_{clock}"
            figures.append(predicted_figure(found, clock, drafts / stem))
        blocks: list[Block] = [
            Heading("Predicted, not measured", 1),
            Para(
                "No number on this page was measured: each was worked out from the operators of a case and from what is"
                f" published of a board. {found.provenance}"
            ),
            *(figure for figure in figures if figure),
            *(comparison_table(found, clock) for clock in found.clocks if len(found.boards) > 1),
            *board_tables(found),
        ]
        (drafts / REPORT).write_text(markdown(blocks), encoding="utf-8")
        written = sorted(path.name for path in drafts.iterdir())
    return [found.path / name for name in written]


def write_into(page: Path, found: Predictions) -> None:
    """Puts the tables by board between the page's two comments. Raises UserError where it has none, and OSError."""
    text = read_text(page)
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"--into {page}: it has no lines {BEGIN} and {END}, between which the table would go.")
    tables = markdown([comparison_table(found, clock) for clock in found.clocks])
    replace_file(page, f"{before}{BEGIN}\n\n{tables}\n{END}{after}")
