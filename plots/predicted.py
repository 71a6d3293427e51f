"""The report of a folder of predictions, predicted.md; and their table between two comments of a page."""

from pathlib import Path

from bench.errors import UserError
from bench.files import between_marks, replace_file
from bench.reading import read_text
from plots.data.predictions import Predictions
from plots.figures.predicted import predicted_figure
from plots.render.blocks import Block, Heading, Para
from plots.render.files import staged
from plots.render.markdown import markdown
from plots.tables.predicted import board_tables, comparison_tables

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
            *(t for clock in found.clocks if len(found.boards) > 1 for t in comparison_tables(found, clock)),
            *board_tables(found),
        ]
        (drafts / REPORT).write_text(markdown(blocks), encoding="utf-8")
        written = sorted(path.name for path in drafts.iterdir())
    return [found.path / name for name in written]


def write_into(page: Path, found: Predictions) -> None:
    """Puts the figure and the tables by board between the page's two comments, and the figure beside the page. Raises
    UserError where it has none, and OSError."""
    text = read_text(page)
    if between_marks(text, BEGIN, END, "") is None:
        raise UserError(f"--into {page}: it has no lines {BEGIN} and {END}, between which the table would go.")
    blocks: list[Block] = []
    with staged(page.parent) as drafts:
        if found.clocks and (figure := predicted_figure(found, found.clocks[0], drafts / FIGURE)):
            blocks.append(figure)
            (drafts / f"{FIGURE}.svg").unlink()  # a page shows the other
    blocks += [table for clock in found.clocks for table in comparison_tables(found, clock)]
    new = between_marks(text, BEGIN, END, f"\n\n{markdown(blocks)}\n")
    assert new is not None
    replace_file(page, new)
