"""The report of one results folder: question, answer, tables, figures, what failed, where it comes from."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.case.clocks import CLOCKS
from bench.errors import listed
from bench.record.stats import MIN_PROCESSES
from plots.data.load import Folder
from plots.data.panels import Panel, by_clock, make_panels
from plots.data.results import Results, read_results
from plots.data.strategies import Strategy, find_strategies
from plots.data.training_runs import EXAMPLES, Run
from plots.figures.canvas import MAX_MODELS
from plots.figures.registry import FIGURES
from plots.layout import Tables, lay_out
from plots.render.blocks import Block, Figure, Heading, Items, Para, Table
from plots.render.files import staged, write_csv
from plots.render.markdown import markdown
from plots.render.page import page
from plots.tables import summary_csv, table2_csv
from plots.tables.efficiency import NO_LIMIT
from plots.tables.lengths import no_fit
from plots.tables.peers import layers_summary, layers_table, peers_rows, remarks
from plots.tables.summary_csv import summary_rows
from plots.tables.table1 import BESIDE
from plots.tables.table2 import steps_table, table2
from plots.tables.table2_csv import table2_rows
from plots.tables.throughput import NO_THROUGHPUT
from plots.text.captions import scene
from plots.text.conditions import conditions
from plots.text.crossover import crossover_sentences
from plots.text.headline import causes, headline
from plots.text.numbers import spare_marks
from plots.text.sections import noise_note, progress_note, provenance, status_blocks
from plots.text.why import why

MAX_LINES = 80  # of a table inside the report; the tables' own file has all of them
QUESTION = "Which way of fine-tuning is really faster here, in forward and backward: all weights, LoRA or PaCA?"
TABLE1_SWEEPS = ("table1", "table1-paper")  # the same table, the second in the paper's precision
TABLE1, OTHER_TABLES = ("table1.md", "table1.csv"), ("tables.md", "summary.csv")
TABLE2, PEERS = ("table2.md", "table2.csv"), ("peers.md", "peers.csv")
NO_MORE = ("times",)  # figures that earlier versions drew
REPORT = ("report.md", "report.html")
# Figures that stand in sections of their own.
PLACED = ("split", "steps", "causes", "waterfall", "grid", "lengths", "throughput", "roofline")

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


def table_files(folder: Folder) -> tuple[str, str]:
    """Where all tables go: table1.* of sweep table1, given by name or by path, tables.md and summary.csv of any other.

    A folder that does not say which sweep it holds is taken by its own name.
    """
    return TABLE1 if Path(folder.sweep or folder.path.resolve()).stem in TABLE1_SWEEPS else OTHER_TABLES


def draw(
    folder: Folder,
    runs: Sequence[Run] = (),
    examples: int = EXAMPLES,
    figures: Sequence[str] = tuple(FIGURES),
    price: float | None = None,
) -> tuple[list[Path], str]:
    """Writes tables, the figures named and reports into the folder; returns their paths and the answer in plain
    sentences.

    `runs` of real training and evaluation stand in Table 2; `examples` make up one of its epochs; `price` of an hour on
    the device makes costs. Raises OSError where they cannot be written, and then the earlier ones are as they were.
    """
    results = read_results(folder, price)
    panels, strategies = make_panels(results), find_strategies(results)
    tables = lay_out(panels)
    said = [headline(results, panels, strategies), *causes(panels)]
    table_md, table_csv = table_files(folder)
    title = f"Fine-tuning times on {folder.device}" + (f", sweep {folder.sweep}" if folder.sweep else "")
    head = _head(results, panels, title)
    notes = _notes_below(panels, tables, f"{table_md} and {table_csv}")
    with staged(folder.path) as drafts:
        drawn = _draw_figures(panels, drafts, figures)
        second = _write_table2(results, strategies, runs, examples, head, drafts)
        failed = status_blocks(folder, table_csv)
        body: list[Block] = [*head, Heading("Question"), Para(QUESTION)]
        body += _section("Answer", [Para(words, "answer") for words in said])
        body += _section("Training time and accuracy", second[:1], _of(drawn, "steps"), second[1:])
        body += _section("Times", _shortened(tables.times, table_md), notes if tables.times else [])
        body += _section(
            "Where the time goes", _of(drawn, "split"), _shortened(tables.breakdown, table_md),
            _aside_note(panels, tables, table_md),
        )  # fmt: skip
        body += _section(
            "Why", why([group[0] for group in by_clock(panels)], table_md), _of(drawn, "causes", "waterfall"),
            _shortened(tables.causes, table_md),
        )  # fmt: skip
        body += _section("Crossover", _of(drawn, "grid"), [Items(tuple(crossover_sentences(panels)))])
        body += _section(
            "Fixed cost and slope", _of(drawn, "lengths"), _shortened(tables.lengths, table_md),
            [] if tables.lengths else [Para(no_fit(panels))],
        )  # fmt: skip
        body += _section("Figures", [f for f in drawn if f.stem not in PLACED])
        body += _section(
            "Throughput and cost", _of(drawn, "throughput"), _shortened(tables.throughput, table_md),
            [] if tables.throughput else [Para(NO_THROUGHPUT)],
        )  # fmt: skip
        body += _section(
            "Efficiency and memory", _of(drawn, "roofline"), _shortened(tables.limits, table_md),
            [] if tables.limits else [Para(NO_LIMIT)], _shortened(tables.memory, table_md),
        )  # fmt: skip
        body += _section("Further tables", _shortened(tables.further, table_md))
        body += _section("Layer by layer", _shortened(tables.layers, PEERS[0]))
        clocks = [f"Clock {clock}: {CLOCKS[clock].meaning}." for clock in results.clocks if clock in CLOCKS]
        body += [Heading("How to read it"), Items((*READING, *clocks)), *failed, *provenance(folder, price)]
        _write(drafts / table_md, markdown([*head, *tables.every, *notes, *failed]))
        _write(drafts / REPORT[0], markdown(body))
        _write(drafts / REPORT[1], page(body, title, drafts))
        write_csv(summary_rows(panels), drafts / table_csv, summary_csv.INTEGERS, summary_csv.HEAD)
        if tables.layers:
            _write_peers(results, panels, [*head, *_of(drawn, "peers")], notes, drafts)
    names = [table_md, table_csv, *(TABLE2 if second else ()), *REPORT, *(PEERS if tables.layers else ())]
    names += [f"{figure.stem}.{kind}" for figure in drawn for kind in ("png", "svg")]
    stems = (*FIGURES, *NO_MORE)
    every = {*TABLE1, *OTHER_TABLES, *PEERS, *(f"{stem}.{kind}" for stem in stems for kind in ("png", "svg"))}
    for old in every - {*names}:
        (folder.path / old).unlink(missing_ok=True)  # of an earlier drawing, which the data no longer support
    return [folder.path / name for name in names], "\n".join(said)


def draw_runs(where: Path, runs: Sequence[Run], examples: int) -> list[Path]:
    """Writes table2.md and table2.csv of real runs without a sweep. Raises OSError."""
    where.mkdir(parents=True, exist_ok=True)
    head: list[Block] = [Heading("Table 2", 1), Para("Real training runs; no sweep was given for projected times.")]
    with staged(where) as drafts:
        _write_table2(None, [], runs, examples, head, drafts)
    return [where / name for name in TABLE2]


def _write(path: Path, words: str) -> None:
    path.write_text(words, encoding="utf-8")


def _section(name: str, *parts: Sequence[Block]) -> list[Block]:
    """A heading and what stands below it, or nothing where that is nothing."""
    blocks = [block for part in parts for block in part]
    return [Heading(name), *blocks] if blocks else []


def _of(drawn: Sequence[Figure], *stems: str) -> list[Figure]:
    return [figure for figure in drawn if figure.stem in stems]


def _shortened(tables: Sequence[Table], whole: str) -> list[Table]:
    """The tables cut to what a report can hold; all of them are in the file called `whole`."""
    return [
        table if len(table.lines) <= MAX_LINES else replace(
            table, lines=table.lines[:MAX_LINES],
            caption=f"The first {MAX_LINES} of {len(table.lines)} lines; {whole} has all of them. {table.caption}",
        )
        for table in tables
    ]  # fmt: skip


def _head(results: Results, panels: Sequence[Panel], title: str) -> list[Block]:
    """The title and what is to be known before any number."""
    folder = results.folder
    words = [scene(folder, results.cases)] if folder.is_cpu and results.cases else []
    told = [*(w[:1].upper() + w[1:] + "." for w in words), progress_note(folder), noise_note(results, panels)]
    return [Heading(title, 1), *(Para(w, "notice") for w in told if w)]


def _notes_below(panels: list[Panel], tables: Tables, files: str) -> list[Para]:
    """What is to be known of the times above; `files` has all of them."""
    notes = []
    if panels and {"cpu-time", "cpu"} <= {panel.clock for panel in panels}:
        notes.append(
            "The headline clock is cpu-time, in ms: the time that the processor worked for the process, user and "
            "system. It leaves out waiting for a core, which other work on the machine causes. Clock cpu is the wall "
            f"time of the same samples; {files} have it."
        )
    if panels and {"eager", "graph"} <= {panel.clock for panel in by_clock(panels)[0]}:
        notes.append("The headline clock is eager, as in the paper, graph beside it: GPU time without launch cost.")
    if panels and not any(table.title == BESIDE for table in tables.every):
        notes.append(
            "The paper's own Table 1 (whole models on an A100, batch 4, lengths 512 and 1024) is in "
            "results/paper/table1.csv. It is not shown beside these numbers, because no case here matches one of its."
        )
    if panels and (state := conditions(panels[0].results.folder)):
        notes.append(f"The GPU while measuring, over all rows: {state}.")
    if any(len(p.subjects) > MAX_MODELS and p.level != "linear" for p in panels):
        notes.append(f"Figures show the first {MAX_MODELS} models; the tables have all of them.")
    return [Para(words) for words in notes]


def _aside_note(panels: list[Panel], tables: Tables, table_md: str) -> list[Para]:
    """Where the times of the clocks are that the breakdown has taken in."""
    clocks = [c for c in ("device", "host") if any(panel.clock == c for panel in panels)]
    several = "s" if clocks[1:] else ""
    return [Para(f"{table_md} has the tables of clock{several} {listed(clocks)}.")] if tables.aside and clocks else []


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
    write_csv(table2_rows(strategies, runs, examples), where / TABLE2[1], table2_csv.INTEGERS)
    return tables


def _write_peers(
    results: Results, panels: Sequence[Panel], head: Sequence[Block], notes: Sequence[Block], where: Path
) -> None:
    """peers.md, a table over all layers and one by layer for each clock, and peers.csv."""
    chosen = [p for p in panels if p.compares_implementations and p.clock in results.shown_clocks]
    tables = [spare_marks(table(panel)) for table in (layers_summary, layers_table) for panel in chosen]
    _write(where / PEERS[0], markdown([*head, *tables, *notes, *remarks(results.folder)]))
    write_csv(peers_rows(results), where / PEERS[1], summary_csv.INTEGERS)
