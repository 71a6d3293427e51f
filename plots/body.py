"""The body of a report: which sections there are, in which order, what of them is folded, and what is printed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.case.clocks import CLOCKS
from bench.errors import listed
from bench.record.stats import MIN_PROCESSES
from plots.data.panels import Panel, by_clock
from plots.data.results import Results
from plots.figures.canvas import MAX_MODELS
from plots.layout import Tables
from plots.render.blocks import Beside, Block, Figure, Heading, Items, Links, Para, Table
from plots.tables.efficiency import NO_LIMIT
from plots.tables.lengths import no_fit
from plots.tables.table1 import BESIDE
from plots.tables.throughput import NO_THROUGHPUT
from plots.text.captions import conditions_once, scene
from plots.text.conditions import conditions
from plots.text.crossover import crossover_sentences
from plots.text.sections import noise_note, progress_note
from plots.text.why import why

MAX_LINES = 80  # of a table inside the report; the tables' own file has all of them
LEADING = ("ratio", "steps", "peers", "layers")  # the first of these that was drawn stands beside the answer
# Figures that stand in sections of their own.
PLACED = ("memory", "split", "steps", "causes", "waterfall", "grid", "lengths", "throughput", "roofline")
DATA = ("rows.csv", "samples.jsonl", "samples.jsonl.gz")

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


@dataclass(frozen=True)
class Parts:
    """What a report is made of."""

    results: Results
    panels: list[Panel]
    tables: Tables
    said: Sequence[str]  # the answer, and what else there is to say of it
    figures: Sequence[Figure]
    second: Sequence[Table]  # of Table 2
    first: Table | None  # the answer's own
    files: tuple[str, str, str, str]  # with all tables, with all numbers, with all layers, and with all methods


def body(parts: Parts) -> list[Block]:
    """Answer, figures and tables, with the conditions told once."""
    tables, (table_md, table_csv, layers_md, methods_md) = parts.tables, parts.files
    leading = next((f for stem in LEADING for f in parts.figures if f.stem == stem), None)
    drawn = [figure for figure in parts.figures if figure is not leading]
    beside = tuple(block for block in (leading, parts.first) if block)
    answer, *more = [Para(words, "answer") for words in parts.said]
    found = _section("Answer", [answer], [Beside(beside)] if beside else [], more, folded=False, printed=True)
    found += _section("Time and memory", _of(drawn, "memory"), folded=False, printed=True)
    found += _section("Methods", shortened(tables.methods, methods_md), printed=True)
    found += _section(
        "Training time and accuracy", parts.second[:1], _of(drawn, "steps"), parts.second[1:], printed=True
    )
    found += _section(
        "Times", shortened(tables.times, table_md),
        notes_below(parts.panels, tables, f"{table_md} and {table_csv}") if tables.times else [], printed=True,
    )  # fmt: skip
    found += _section(
        "Where the time goes", _of(drawn, "split"), shortened(tables.breakdown, table_md),
        _aside_note(parts.panels, tables, table_md),
    )  # fmt: skip
    found += _section(
        "Why", why([group[0] for group in by_clock(parts.panels)], table_md), _of(drawn, "causes", "waterfall"),
        shortened(tables.causes, table_md),
    )  # fmt: skip
    found += _section("Crossover", _of(drawn, "grid"), [Items(tuple(crossover_sentences(parts.panels)))])
    found += _section(
        "Fixed cost and slope", _of(drawn, "lengths"), shortened(tables.lengths, table_md),
        [] if tables.lengths else [Para(no_fit(parts.panels))],
    )  # fmt: skip
    found += _section("Figures", [f for f in drawn if f.stem not in PLACED])
    found += _section(
        "Throughput and cost", _of(drawn, "throughput"), shortened(tables.throughput, table_md),
        [] if tables.throughput else [Para(NO_THROUGHPUT)],
    )  # fmt: skip
    found += _section(
        "Efficiency and memory", _of(drawn, "roofline"), shortened(tables.limits, table_md),
        [] if tables.limits else [Para(NO_LIMIT)], shortened(tables.memory, table_md),
    )  # fmt: skip
    found += _section("Further tables", shortened(tables.further, table_md))
    found += _section("Layer by layer", shortened(tables.layers, layers_md))
    return _stated(found, parts.results)


def _stated(found: list[Block], results: Results) -> list[Block]:
    """With a section of the conditions before the first section that is folded."""
    found, stated = conditions_once(found, results)
    at = next((i for i, block in enumerate(found) if isinstance(block, Heading) and block.folded), len(found))
    told: list[Block] = []
    if stated:
        told = [Para("Of every figure and table, where it says nothing else:"), Items(stated)]
    return [*found[:at], *_section("Conditions", told, printed=True), *found[at:]]


def reading(results: Results) -> list[Block]:
    """How to read the numbers, and what the clocks are."""
    clocks = [f"Clock {clock}: {CLOCKS[clock].meaning}." for clock in results.clocks if clock in CLOCKS]
    return _section("How to read it", [Items((*READING, *clocks))])


def beside_the_report(folder: Path, written: Sequence[str]) -> Links:
    """The files that hold what the report shows: those just written, and those of the record that are there."""
    return Links((*(name for name in DATA if (folder / name).is_file()), *written))


def _section(name: str, *parts: Sequence[Block], folded: bool = True, printed: bool = False) -> list[Block]:
    """A heading and what stands below it, or nothing where that is nothing."""
    blocks = [block for part in parts for block in part]
    return [Heading(name, folded=folded, printed=printed), *blocks] if blocks else []


def _of(drawn: Sequence[Figure], *stems: str) -> list[Figure]:
    return [figure for figure in drawn if figure.stem in stems]


def shortened(tables: Sequence[Table], whole: str) -> list[Table]:
    """The tables cut to what a report can hold; all of them are in the file called `whole`."""
    return [
        table if len(table.lines) <= MAX_LINES else replace(
            table, lines=table.lines[:MAX_LINES],
            caption=f"The first {MAX_LINES} of {len(table.lines)} lines; {whole} has all of them. {table.caption}",
        )
        for table in tables
    ]  # fmt: skip


def head_of(results: Results, panels: Sequence[Panel], title: str) -> list[Block]:
    """The title and what is to be known before any number."""
    folder = results.folder
    words = [scene(folder, results.cases)] if folder.is_cpu and results.cases else []
    told = [*(w[:1].upper() + w[1:] + "." for w in words), progress_note(folder), noise_note(results, panels)]
    return [Heading(title, 1), *(Para(w, "notice") for w in told if w)]


def notes_below(panels: list[Panel], tables: Tables, files: str) -> list[Para]:
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
