"""The page over several boards: boards.md, boards.html, boards.csv and its figure."""

from pathlib import Path

from bench.errors import UserError, shell_line
from bench.reading import read_text
from plots.boards.figure import boards_figure
from plots.boards.side import put_side_by_side
from plots.boards.sorting import Kin
from plots.boards.tables import boards_rows, boards_table
from plots.boards.text import READING, answers, notices, sources
from plots.body import shortened
from plots.data.results import read_results
from plots.render.blocks import Block, Code, Heading, Items, Links, Para
from plots.render.files import staged, write_csv
from plots.render.markdown import markdown
from plots.render.page import page
from plots.tables import summary_csv
from plots.text.sections import shown

STEM = "boards"
TITLE = "Ratio to Full-FT by "


def draw_boards(where: Path, kin: Kin) -> tuple[list[Path], str]:
    """Writes all of it; returns the paths and the answer, without paths where no two boards have anything in common.
    Raises OSError; UserError where the folder holds another boards.md."""
    sides = put_side_by_side({name: read_results(folder) for name, folder in kin.folders.items()})
    if not sides:
        return [], f"No page over boards: no two of {', '.join(kin.folders)} have a level, precision and L2 in common."
    _check(where)
    where.mkdir(parents=True, exist_ok=True)
    title = f"{TITLE}{kin.what}, sweep {kin.sweep}"
    said = [words for side in sides for words in answers(side)]
    with staged(where) as drafts:
        drawn = (boards_figure(kin, side, drafts / STEM) for side in sides)
        figure = next(filter(None, drawn), None)
        tables = [boards_table(side) for side in sides]
        head: list[Block] = [Heading(title, 1), *(Para(words, "notice") for words in notices(kin, sides))]
        answer: list[Block] = [Heading("Answer"), *(Para(words, "answer") for words in said)]
        answer += [*([figure] if figure else []), Heading("Every ratio")]
        rest: list[Block] = [Heading("How to read it"), Items(READING)]
        rest += [Heading("The boards"), Items(tuple(sources(kin, sides))), Heading("To get it again")]
        again = ["python", "-m", "plots", *(shown(folder.path) for folder in kin.folders.values())]
        rest += [Code(shell_line([*again, *([] if where == kin.place else ["--out", shown(where)])]))]
        web = page([*head, Links((f"{STEM}.csv",)), *answer, *shortened(tables, f"{STEM}.md"), *rest], title, drafts)
        (drafts / f"{STEM}.md").write_text(markdown([*head, *answer, *tables, *rest]), encoding="utf-8")
        (drafts / f"{STEM}.html").write_text(web, encoding="utf-8")
        write_csv(boards_rows(kin, sides), drafts / f"{STEM}.csv", summary_csv.INTEGERS)
        written = sorted(path.name for path in drafts.iterdir())
    for old in {f"{STEM}.{kind}" for kind in ("png", "svg")} - {*written}:
        (where / old).unlink(missing_ok=True)  # of an earlier drawing, which the records no longer support
    return [where / name for name in written], "\n".join(said)


def _check(where: Path) -> None:
    there = where / f"{STEM}.md"
    if there.exists() and not read_text(there).startswith(f"# {TITLE}"):
        raise UserError(f"{there}: this is no page over boards. Say with --out where that goes.")
