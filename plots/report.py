"""The report of one results folder and the files beside it."""

from collections.abc import Sequence
from pathlib import Path

from plots.body import Parts, beside_the_report, body, head_of, notes_below, reading
from plots.data.load import Folder
from plots.data.panels import Panel, make_panels
from plots.data.results import Results, read_results
from plots.data.strategies import Strategy, find_strategies
from plots.data.training_runs import EXAMPLES, Run
from plots.figures.registry import FIGURES
from plots.layout import lay_out
from plots.render.blocks import Block, Figure, Table
from plots.render.files import staged, write_csv
from plots.render.markdown import markdown
from plots.render.page import page
from plots.tables import summary_csv, table2_csv
from plots.tables.methods import methods_rows
from plots.tables.peers import layers_summary, layers_table, peers_rows, remarks
from plots.tables.shortlist import shortlist_table
from plots.tables.summary_csv import summary_rows
from plots.tables.table2 import steps_table, table2
from plots.tables.table2_csv import table2_rows
from plots.text.headline import causes, headline
from plots.text.numbers import spare_marks
from plots.text.sections import provenance, status_blocks

TABLE1_SWEEPS = ("table1", "table1-paper")  # the same table, the second in the paper's precision
TABLE1, OTHER_TABLES = ("table1.md", "table1.csv"), ("tables.md", "summary.csv")
TABLE2, PEERS = ("table2.md", "table2.csv"), ("peers.md", "peers.csv")
METHODS = ("methods.md", "methods.csv")
NO_MORE = ("times",)  # figures that earlier versions drew
REPORT = ("report.md", "report.html")


def table_files(folder: Folder) -> tuple[str, str]:
    """Where all tables go: table1.* of sweep table1, given by name or by path, tables.md and summary.csv of any
    other."""
    return TABLE1 if folder.sweep_name in TABLE1_SWEEPS else OTHER_TABLES


def draw(
    folder: Folder,
    runs: Sequence[Run] = (),
    examples: int = EXAMPLES,
    figures: Sequence[str] = tuple(FIGURES),
    price: float | None = None,
) -> tuple[list[Path], str]:
    """Writes tables, the figures named and reports into the folder; returns their paths and the answer in plain
    sentences.

    `runs` of real training and evaluation stand in Table 2; `examples` make up an epoch; `price` of an hour on the
    device makes costs. Raises OSError where they cannot be written, and then the earlier ones are as they were.
    """
    results = read_results(folder, price, examples)
    panels, strategies = make_panels(results), find_strategies(results)
    tables = lay_out(panels)
    said = [headline(results, panels, strategies), *causes(panels)]
    table_md, table_csv = table_files(folder)
    title = f"Fine-tuning times on {folder.device}" + (f", sweep {folder.sweep}" if folder.sweep else "")
    head = head_of(results, panels, title)
    notes = notes_below(panels, tables, f"{table_md} and {table_csv}")
    with staged(folder.path) as drafts:
        drawn = _draw_figures(panels, drafts, figures)
        second = _write_table2(results, strategies, runs, examples, head, drafts)
        failed = status_blocks(folder, table_csv)
        files = (table_md, table_csv, PEERS[0], METHODS[0])
        parts = Parts(results, panels, tables, said, drawn, second, shortlist_table(panels), files)
        beside = beside_the_report(
            folder.path,
            [table_csv]
            + [
                csv
                for (_, csv), there in ((TABLE2, second), (PEERS, tables.layers), (METHODS, tables.methods))
                if there
            ],
        )
        page_blocks = [*head, beside, *body(parts), *reading(results), *failed, *provenance(folder, price)]
        _write(drafts / table_md, markdown([*head, *tables.every, *notes, *failed]))
        _write(drafts / REPORT[0], markdown(page_blocks))
        _write(drafts / REPORT[1], page(page_blocks, title, drafts))
        write_csv(summary_rows(panels), drafts / table_csv, summary_csv.INTEGERS, summary_csv.HEAD)
        if tables.layers:
            _write_peers(results, panels, [*head, *(f for f in drawn if f.stem == "peers")], notes, drafts)
        if tables.methods:
            shown = [f for f in drawn if f.stem in ("memory", "ratio")]
            whole = [*head, *shown, *tables.methods, *notes, *remarks(results.folder, linear=False)]
            _write(drafts / METHODS[0], markdown(whole))
            write_csv(methods_rows(panels), drafts / METHODS[1], summary_csv.INTEGERS)
    names = [table_md, table_csv, *(TABLE2 if second else ()), *REPORT, *(PEERS if tables.layers else ())]
    names += METHODS if tables.methods else ()
    names += [f"{figure.stem}.{kind}" for figure in drawn for kind in ("png", "svg")]
    stems = (*FIGURES, *NO_MORE)
    every = {*TABLE1, *OTHER_TABLES, *PEERS, *METHODS, *(f"{stem}.{kind}" for stem in stems for kind in ("png", "svg"))}
    for old in every - {*names}:
        (folder.path / old).unlink(missing_ok=True)  # of an earlier drawing, which the data no longer support
    return [folder.path / name for name in names], "\n".join(said)


def _write(path: Path, words: str) -> None:
    path.write_text(words, encoding="utf-8")


def _draw_figures(panels: list[Panel], where: Path, wanted: Sequence[str]) -> list[Figure]:
    """Each figure for the first panel of the headline clock that supports it."""
    drawn = []
    for stem in wanted:
        shown = (FIGURES[stem](panel, where / stem) for panel in panels if panel.clock == panels[0].clock)
        drawn += [figure for figure in [next(filter(None, shown), None)] if figure]
    return drawn


def _write_table2(
    results: Results | None, strategies: Sequence[Strategy], runs: Sequence[Run], examples: int, head: Sequence[Block],
    where: Path,
) -> list[Table]:  # fmt: skip
    """table2.md and table2.csv where there is anything of Table 2; returns its tables."""
    if not strategies and not runs:
        return []
    tables = [table2(results, strategies, runs, examples)]
    tables += [steps_table(results, strategies)] if results and strategies else []
    tables = [spare_marks(table) for table in tables]
    _write(where / TABLE2[0], markdown([*head, *tables]))
    price = results.price if results else None
    write_csv(table2_rows(strategies, runs, examples, price), where / TABLE2[1], table2_csv.INTEGERS)
    return tables


def _write_peers(
    results: Results, panels: Sequence[Panel], head: Sequence[Block], notes: Sequence[Block], where: Path
) -> None:
    """peers.md, a table over all layers and one by layer for each clock, and peers.csv."""
    chosen = [p for p in panels if p.compares_implementations and p.clock in results.shown_clocks]
    tables = [spare_marks(table(panel)) for table in (layers_summary, layers_table) for panel in chosen]
    _write(where / PEERS[0], markdown([*head, *tables, *notes, *remarks(results.folder)]))
    write_csv(peers_rows(results), where / PEERS[1], summary_csv.INTEGERS)
