"""The report of one results folder: question, answer, tables, figures, what failed, where it comes from."""

import json
import re
import shlex
from pathlib import Path

from plots.cells import METHODS, Book, make_book
from plots.figures import MAX_MODELS, Figure, draw_all, ratio_figure, times_figure
from plots.load import Folder, text
from plots.render import Block, Code, Facts, Heading, Items, Para, markdown, page
from plots.stats import MIN_PROCESSES
from plots.tables import (
    BESIDE,
    MAX_WIDE,
    Panel,
    Table,
    fits_table,
    layers_table,
    panels,
    paper_table,
    table1,
)
from plots.tidy import tidy, write_tidy
from plots.words import CLOCK_WORDS, RATIO_PLACES, distinct, listed, place, scene, shape_word, with_interval

MAX_LINES = 80  # of a table inside the report; table1.md has all of them
FIGURES = ("times", "ratio", "layers", "lengths", "grid")
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


def answer(folder: Folder, book: Book, all_panels: list[Panel]) -> str:
    """One plain sentence from the data, for the first panel in which a ratio could be formed."""
    for panel in all_panels:
        if said := _ratios_said(book, panel):
            where = f"{place(folder, panel.level)}, {panel.precision or 'unknown precision'}, clock {panel.clock}"
            return f"{where[0].upper()}{where[1:]}: {listed(said)}."
    if not book.cases:
        return "Nothing has been measured in this folder yet."
    if not any(cell.time for cell in book.cells.values()):
        statuses = distinct(cell.status for cell in book.failures.values())
        return f"None of the {len(book.cases)} cases gave a time (status {listed(statuses)}): there is no answer yet."
    return "No ratio to Full-FT could be formed: Full-FT and another method are needed at equal axes."


def _ratios_said(book: Book, panel: Panel) -> list[str]:
    """'LoRA eager took 1.31 ± 0.02 times Full-FT's forward-backward on ...' for the first type of each method."""
    said: list[str] = []
    for method in [m for m in METHODS if m != "full"]:
        ratios = {c: book.ratio(c, "forward-backward", panel.clock) for c in panel.cases if c.method == method}
        types = [t for t in panel.types if any(panel.labels[c] == t and r.value for c, r in ratios.items())]
        if not types:
            continue
        found = {c: r for c, r in ratios.items() if panel.labels[c] == types[0] and r.value}
        values = [r.value.value for r in found.values() if r.value]
        # Told is the case with the longest time: the largest model at the largest size.
        case = max(found, key=lambda c: t.value if (t := book.get(c, "forward-backward", panel.clock).time) else 0.0)
        ratio, base = found[case], book.baseline(case)
        assert ratio.value is not None and base is not None, "a case with a ratio has both"
        over = f" {panel.labels[base]}'s forward-backward" if not said else ""
        many = f"; {min(values):.2f} to {max(values):.2f} over all {len(found)} cases" if len(found) > 1 else ""
        said.append(
            f"{types[0]} took {with_interval(ratio.value, RATIO_PLACES)} times{over} on {case.subject} at "
            f"{shape_word(case.shape)} (interval {ratio.scope}{', noisy' if ratio.noisy else ''}{many})"
        )
    return said


def failed_items(folder: Folder) -> list[str]:
    """Every case that has rows without a time, with its status and detail."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for row in folder.rows:
        status = text(row.get("status")) or "ok"
        if status != "ok":
            where = " ".join(filter(None, (text(row.get(n)) for n in ("level", "model", "layer"))))
            rank = f" rank {text(row.get('rank'))}" if text(row.get("rank")) else ""
            name = f"{where}, {text(row.get('method'))} {text(row.get('impl'))}{rank}, {text(row.get('precision'))}"
            shape = f"{text(row.get('batch'))} x {text(row.get('seq'))}"
            key = (status, name, text(row.get("detail")) or "no detail recorded")
            found.setdefault(key, [])
            if shape not in found[key]:
                found[key].append(shape)
    return [f"{status}: {name}, {listed(shapes)}: {detail}" for (status, name, detail), shapes in sorted(found.items())]


def commands(folder: Folder) -> tuple[str, str]:
    """The command that measured, and the one that retries what failed: the same, so that --out and the like stay."""
    last = folder.invocations[-1] if folder.invocations else {}
    asked = " ".join((text(last.get("command")) or "").split())
    asked = asked or f"python -m bench run {shlex.quote(folder.sweep or folder.path.resolve().name)}"
    statuses = sorted({text(r.get("status")) or "ok" for r in folder.rows} - {"ok", "unsupported"})
    if not statuses:
        return asked, ""
    kept = re.sub(r" --(fresh|retry[ =]\S+)(?=\s|$)", "", asked)
    return asked, f"{kept} --retry {','.join(statuses)}"


def status_blocks(folder: Folder) -> list[Block]:
    """What was not timed, why, and the command that tries again."""
    items = failed_items(folder)
    blocks: list[Block] = [Heading("What could not be timed")]
    if items:
        blocks.append(Items(tuple(items[:MAX_LINES])))
        if len(items) > MAX_LINES:
            blocks.append(Para(f"{len(items) - MAX_LINES} more are in table1.csv."))
    else:
        blocks.append(Para("Every recorded row has a time."))
    if any((text(r.get("status")) or "") == "unsupported" for r in folder.rows):
        blocks.append(Para("Unsupported means that this implementation cannot express the case here; no failure."))
    if retry := commands(folder)[1]:
        blocks += [Para("To measure the failed ones again:"), Code(retry)]
    return blocks


def provenance(folder: Folder) -> list[Block]:
    """run.json in words, and how to get these files again."""
    plain = [(k, v) for k, v in folder.run.items() if k != "invocations" and v is not None and v != ""]
    pairs = [(k.replace("_", " "), json.dumps(v) if isinstance(v, (dict, list)) else str(v)) for k, v in plain]
    runs = folder.invocations
    for name, told in (("started", runs[:1]), ("finished", runs[-1:])):
        pairs += [(name, str(run[name])) for run in told if run.get(name)]
    pairs += [("runs so far", str(len(runs)))] if len(runs) > 1 else []
    pairs += [("rows", str(len(folder.rows))), ("rows with raw samples", str(len(folder.samples_ms)))]
    pairs += [("note", note) for note in folder.notes]
    asked, _ = commands(folder)
    redraw = f"python -m plots {shlex.quote(_shown(folder.path))}"
    blocks: list[Block] = [Heading("Where it comes from"), Facts(tuple(pairs)), Heading("To get it again")]
    blocks.append(Code(f"{asked}\n{redraw}"))
    sweep = folder.invocations[-1].get("sweep") if folder.invocations else None
    if isinstance(sweep, dict) and isinstance(sweep.get("text"), str):
        blocks += [Para("The sweep as it was read:"), Code(sweep["text"].rstrip())]
    return blocks


def _shown(path: Path) -> str:
    """The folder as seen from the working directory, where it lies inside it."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def progress_note(folder: Folder) -> str:
    """How much of the sweep is on record, where that is not all of it."""
    planned = folder.invocations[-1].get("cases") if folder.invocations else None
    recorded = len({(row.get("case_id"), row.get("repeat")) for row in folder.rows})
    if not isinstance(planned, int) or not 0 < recorded < planned:
        return ""
    return f"Half-finished: {recorded} of {planned} measurements are on record. The same command goes on with them."


def noise_note(book: Book) -> str:
    """A warning where many of the times are noisy."""
    timed = [cell for cell in book.cells.values() if cell.time]
    noisy = sum(cell.noisy for cell in timed)
    if 4 * noisy <= len(timed):
        return ""
    return (
        f"{noisy} of {len(timed)} times are noisy: their intervals are wider than the sweep allows. Other work on the "
        "machine does that. Measure again on a quiet one (--fresh) before you conclude anything."
    )


def clock_lines(book: Book) -> list[str]:
    """What each clock of the folder measures."""
    return [f"Clock {clock}: {CLOCK_WORDS[clock]}." for clock in book.clocks if clock in CLOCK_WORDS]


def all_tables(folder: Folder, book: Book, found: list[Panel]) -> list[Table]:
    """Every table that the data support, the headline clock's first."""
    tables: list[Table] = []
    for panel in found:
        if panel.level == "linear":
            tables.append(layers_table(folder, book, panel))
        else:
            tables.append(table1(folder, book, panel))
            if beside := paper_table(folder, book, panel):
                tables.append(beside)
        if panel.level != "linear" and panel.clock != "host" and (fit := fits_table(folder, book, panel)):
            tables.append(fit)
    return tables


def shortened(table: Table) -> Table:
    """The table cut to what a report can hold."""
    if len(table.lines) <= MAX_LINES:
        return table
    more = f"The first {MAX_LINES} of {len(table.lines)} lines; table1.md and table1.csv have all of them. "
    return Table(table.title, more + table.caption, table.lead, table.groups, table.lines[:MAX_LINES])


def draw_figures(folder: Folder, book: Book, found: list[Panel]) -> list[Figure]:
    """The figures of the headline clock's panels, one set for the first panel of each level."""
    from plots.curves import grid_figure, layers_figure, lengths_figure

    for stem in FIGURES:  # those of an earlier drawing, which the data may no longer support
        for kind in ("png", "svg"):
            (folder.path / f"{stem}.{kind}").unlink(missing_ok=True)
    drawn: dict[str, Figure] = {}
    for panel in [p for p in found if p.clock == found[0].clock]:
        few = len(panel.shapes) <= MAX_WIDE
        makers = [layers_figure] if panel.level == "linear" else [times_figure, ratio_figure] if few else []
        makers += [] if panel.level == "linear" else [lengths_figure, grid_figure]
        makers = [m for m in makers if m.__name__.removesuffix("_figure") not in drawn]
        drawn |= {figure.stem: figure for figure in draw_all(folder, book, panel, folder.path, makers)}
    return [drawn[stem] for stem in FIGURES if stem in drawn]


def paper_note(tables: list[Table]) -> str:
    """Where to find the paper's numbers when none stands beside ours."""
    if any(table.title == BESIDE for table in tables):
        return ""
    return (
        "The paper's own Table 1 (whole models on an A100, batch 4, lengths 512 and 1024) is in "
        "results/paper/table1.csv. It is not shown beside these numbers, because no case here matches one of its."
    )


def draw(folder: Folder) -> tuple[list[Path], str]:
    """Writes tables, figures and reports into the folder; returns their paths and the answer in one sentence."""
    book = make_book(folder)
    found = panels(book) if book.cases else []
    tables = all_tables(folder, book, found)
    figures = draw_figures(folder, book, found) if found else []
    said = answer(folder, book, found)
    title = f"Fine-tuning times on {folder.device}" + (f", sweep {folder.sweep}" if folder.sweep else "")
    head: list[Block] = [Heading(title, 1)]
    if folder.is_cpu and book.cases:
        words = scene(folder, book.cases)
        head.append(Para(words[:1].upper() + words[1:] + ".", "notice"))
    head += [Para(words, "notice") for words in [progress_note(folder), noise_note(book)] if words]
    notes = [Para(words) for words in [paper_note(tables)] if words and found]
    if any(len(p.subjects) > MAX_MODELS and p.level != "linear" for p in found):
        notes.append(Para(f"Figures show the first {MAX_MODELS} models; the tables have all of them."))
    body: list[Block] = [*head, Heading("Question"), Para(QUESTION), Heading("Answer"), Para(said, "answer")]
    lead = 2 if [t.title for t in tables[1:2]] == [BESIDE] else 1
    body += [Heading("Times"), *map(shortened, tables[:lead]), *notes] if tables else []
    body += [Heading("Figures"), *figures] if figures else []
    body += [Heading("Further tables"), *map(shortened, tables[lead:])] if tables[lead:] else []
    body += [
        Heading("How to read it"),
        Items((*READING, *clock_lines(book))),
        *status_blocks(folder),
        *provenance(folder),
    ]
    files = {
        "table1.md": markdown([*head, *tables, *notes, *status_blocks(folder)]),
        "report.md": markdown(body),
        "report.html": page(body, title, folder.path),
    }
    for name, words in files.items():
        (folder.path / name).write_text(words, encoding="utf-8")
    write_tidy(tidy(folder, book), folder.path / "table1.csv")
    drawn = [f"{figure.stem}.{kind}" for figure in figures for kind in ("png", "svg")]
    return [folder.path / name for name in ("table1.md", "table1.csv", "report.md", "report.html", *drawn)], said
