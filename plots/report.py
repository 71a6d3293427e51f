"""The report of one results folder: question, answer, tables, figures, what failed, where it comes from."""

from collections.abc import Sequence
from pathlib import Path

from plots.data.breakdown import make_splits
from plots.data.length_fit import MIN_PROCESSES
from plots.data.load import Folder
from plots.data.panels import MAX_TYPES, MAX_WIDE, Panel, Table, panels
from plots.data.results import Book, make_book
from plots.data.training_runs import EXAMPLES, Run
from plots.figures.canvas import MAX_MODELS, Figure, draw_all, ratio_figure, times_figure
from plots.figures.steps import STEM as STEPS
from plots.layout import Tables, arrange, groups
from plots.render.blocks import Block, Heading, Items, Para, markdown, page
from plots.render.files import staged
from plots.table2_report import FILES as TABLE2
from plots.table2_report import make_second
from plots.tables.breakdown import Splits, why
from plots.tables.peers import FILES as PEERS_FILES
from plots.tables.peers import STEM as PEERS
from plots.tables.peers import write_peers
from plots.tables.summary_csv import tidy, write_tidy
from plots.tables.table1 import BESIDE
from plots.text.captions import CLOCK_WORDS, listed, scene
from plots.text.conditions import conditions
from plots.text.headline import answer
from plots.text.sections import noise_note, progress_note, provenance, status_blocks

MAX_LINES = 80  # of a table inside the report; table1.md has all of them
SPLIT = "split"
FIGURES = (SPLIT, STEPS, "times", "ratio", "layers", PEERS, "lengths", "grid")
QUESTION = "Which way of fine-tuning is really faster here, in forward and backward: all weights, LoRA or PaCA?"

READING = (
    "Lower is faster. Full-FT trains every weight, LoRA two thin matrices beside each adapted layer, PaCA a few input "
    "columns of it.",
    "The second word of a training type is how it is computed: eager is textbook PyTorch.",
    "A ratio of 1.30 means 30 % more time than Full-FT at equal level, model, layers, precision, batch, length and "
    "clock. A linear layer costs 6MNK operations under Full-FT and 4MNK under LoRA and PaCA, so no forward can be "
    "faster than Full-FT's by arithmetic, and forward + backward of the linear layers no less than 2/3 of it.",
    f"An interval marked 'within process' speaks for the one process that measured it: another start of the same code "
    f"may lie outside. It takes {MIN_PROCESSES} processes to say more (--repeat {MIN_PROCESSES}).",
    "A word in place of a time is how that measurement ended; no time is ever made up for it.",
)


def clock_lines(book: Book) -> list[str]:
    """What each clock of the folder measures."""
    return [f"Clock {clock}: {CLOCK_WORDS[clock]}." for clock in book.clocks if clock in CLOCK_WORDS]


def shortened(table: Table, whole: str = "table1") -> Table:
    """The table cut to what a report can hold; all of it is in the files called `whole`."""
    if len(table.lines) <= MAX_LINES:
        return table
    more = f"The first {MAX_LINES} of {len(table.lines)} lines; {whole}.md and {whole}.csv have all of them. "
    return Table(table.title, more + table.caption, table.lead, table.groups, table.lines[:MAX_LINES])


def draw_figures(folder: Folder, book: Book, found: list[Panel], splits: Splits, where: Path) -> list[Figure]:
    """The figures of the headline clock's panels, one set for the first panel of each level."""
    from plots.figures.breakdown import split_figure
    from plots.figures.lengths import grid_figure, layers_figure, lengths_figure, peers_figure

    drawn: dict[str, Figure] = {}
    for panel in [p for p in found if p.clock == found[0].clock]:
        few = len(panel.shapes) <= MAX_WIDE
        many = panel.level == "linear" and len(panel.types) > MAX_TYPES  # more than one layer has room for
        layers = [peers_figure] if many else [layers_figure, peers_figure]
        makers = layers if panel.level == "linear" else [times_figure, ratio_figure] if few else []
        makers += [] if panel.level == "linear" else [lengths_figure, grid_figure]
        makers = [m for m in makers if m.__name__.removesuffix("_figure") not in drawn]
        drawn |= {figure.stem: figure for figure in draw_all(folder, book, panel, where, makers)}
        one = split_figure(folder, book, panel, splits, where) if SPLIT not in drawn and not many else None
        drawn |= {SPLIT: one} if one else {}
    return [drawn[stem] for stem in FIGURES if stem in drawn]


def split_section(found: list[Panel], tables: Tables, figures: list[Figure]) -> list[Block]:
    """'Where the time goes', where a GPU clock stands beside eager."""
    if not tables.splits:
        return []
    blocks: list[Block] = [Heading("Where the time goes"), *figures, *map(shortened, tables.splits)]
    if tables.aside:
        clocks = [c for c in ("device", "host") if any(panel.clock == c for panel in found)]
        blocks.append(Para(f"table1.md has the tables of clock{'s' if clocks[1:] else ''} {listed(clocks)}."))
    return blocks


def paper_note(tables: list[Table]) -> str:
    """Where to find the paper's numbers when none stands beside ours."""
    if any(table.title == BESIDE for table in tables):
        return ""
    return (
        "The paper's own Table 1 (whole models on an A100, batch 4, lengths 512 and 1024) is in "
        "results/paper/table1.csv. It is not shown beside these numbers, because no case here matches one of its."
    )


def notes_below(folder: Folder, found: list[Panel], tables: Tables) -> list[Para]:
    """What is to be known of the times above."""
    notes = [paper_note(tables.every)] if found else []
    if found and {"eager", "graph"} <= {panel.clock for panel in groups(found)[0]}:
        notes.insert(0, "The headline clock is eager, as in the paper, graph beside it: GPU time without launch cost.")
    if state := conditions(folder):
        notes.append(f"The GPU while measuring, over all rows: {state}.")
    if any(len(p.subjects) > MAX_MODELS and p.level != "linear" for p in found):
        notes.append(f"Figures show the first {MAX_MODELS} models; the tables have all of them.")
    return [Para(words) for words in notes if words]


def draw(folder: Folder, runs: Sequence[Run] = (), examples: int = EXAMPLES) -> tuple[list[Path], str]:
    """Writes tables, figures and reports into the folder; returns their paths and the answer in plain sentences.

    `runs` of real training and evaluation stand in Table 2; `examples` make up one of its epochs.
    Raises OSError where they cannot be written, and then the earlier ones are as they were.
    """
    book = make_book(folder)
    found = panels(book) if book.cases else []
    splits = make_splits(book)
    tables = arrange(folder, book, found, splits)
    second = make_second(folder, book, runs, examples)
    said = [second.said if second and second.said else answer(folder, book, found), *why(book, found, splits)]
    title = f"Fine-tuning times on {folder.device}" + (f", sweep {folder.sweep}" if folder.sweep else "")
    head: list[Block] = [Heading(title, 1)]
    if folder.is_cpu and book.cases:
        words = scene(folder, book.cases)
        head.append(Para(words[:1].upper() + words[1:] + ".", "notice"))
    head += [Para(words, "notice") for words in [progress_note(folder), noise_note(book)] if words]
    notes = notes_below(folder, found, tables)
    with staged(folder.path) as drafts:
        figures = draw_figures(folder, book, found, splits, drafts) if found else []
        steps = second.draw(folder, book, drafts) if second else []
        apart = [figure for figure in figures if figure.stem == SPLIT]
        others = [figure for figure in figures if figure not in apart]
        body: list[Block] = [*head, Heading("Question"), Para(QUESTION), Heading("Answer")]
        body += [Para(words, "answer") for words in said]
        body += second.section(steps) if second else []
        body += [Heading("Times"), *map(shortened, tables.times), *notes] if tables.times else []
        body += split_section(found, tables, apart)
        body += [Heading("Figures"), *others] if others else []
        body += [Heading("Efficiency and memory"), *map(shortened, tables.hardware)] if tables.hardware else []
        body += [Heading("Further tables"), *map(shortened, tables.further)] if tables.further else []
        body += [Heading("Layer by layer"), *(shortened(t, PEERS) for t in tables.peers)] if tables.peers else []
        body += [Heading("How to read it"), Items((*READING, *clock_lines(book)))]
        body += [*status_blocks(folder), *provenance(folder)]
        files = {
            "table1.md": markdown([*head, *tables.every, *notes, *status_blocks(folder)]),
            "report.md": markdown(body),
            "report.html": page(body, title, drafts),
        }
        for name, words in files.items():
            (drafts / name).write_text(words, encoding="utf-8")
        write_tidy(tidy(folder, book, splits), drafts / "table1.csv")
        if second:
            second.write(head, drafts)
        if tables.peers:
            write_peers(folder, book, found, [*head, *(f for f in figures if f.stem == PEERS)], notes, drafts)
    drawn = [f"{figure.stem}.{kind}" for figure in [*steps, *figures] for kind in ("png", "svg")]
    drawn += PEERS_FILES if tables.peers else ()
    known = {f"{stem}.{kind}" for stem in FIGURES for kind in ("png", "svg")} | {*PEERS_FILES}
    for old in known - {*drawn}:
        (folder.path / old).unlink(missing_ok=True)  # of an earlier drawing, which the data no longer support
    names = ("table1.md", "table1.csv", *(TABLE2 if second else ()), "report.md", "report.html", *drawn)
    return [folder.path / name for name in names], "\n".join(said)
