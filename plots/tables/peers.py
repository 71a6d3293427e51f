"""peers.md and peers.csv: every method and implementation of single layers, beside Full-FT and beside PEFT's LoRA."""

from collections.abc import Callable, Sequence
from math import exp
from pathlib import Path

import numpy as np

from plots.data.case import Case, read_case
from plots.data.length_fit import Estimate, interval
from plots.data.load import Folder, text
from plots.data.panels import Panel, Table, title
from plots.data.results import Book, Ratio
from plots.render.blocks import Block, Heading, Items, markdown
from plots.tables.table1 import ratio_note
from plots.text.captions import NOISY, RATIO_PLACES, caption, labels, listed, ratio_word, time_word, with_interval

STEM = "peers"
FILES = (f"{STEM}.md", f"{STEM}.csv")
PASSES = ("forward", "backward", "forward-backward")
PEFT = "PEFT"
OWN = ("rank", "alpha", "dropout", "targets")  # equal in a ratio to PEFT; the adapters' dtype is the impl's own
OTHER_METHOD = "none"
TINY = 1e-6  # draws around a very noisy median, known by its interval alone, may fall below zero

Over = Callable[[Case, str, str], Ratio]  # of a case, pass and clock


def is_peers(panel: Panel) -> bool:
    """Whether a panel compares implementations: single layers, and some method computed in more than one way."""
    kinds = {(c.method, c.impl) for c in panel.cases}
    return panel.level == "linear" and len(kinds) > len({method for method, _ in kinds})


def over_peft(book: Book, case: Case, pass_: str, clock: str) -> Ratio:
    """Time of a LoRA case over impl peft's at equal axes, rank, alpha and dropout; of another method 'none'."""
    if case.method != "lora":
        return Ratio(OTHER_METHOD)
    alike = [c for c in book.alike(case) if (c.method, c.impl) == ("lora", "peft")]
    base = next((c for c in alike if all(getattr(c, axis) == getattr(case, axis) for axis in OWN)), None)
    return book.over(case, base, PEFT, pass_, clock)


def _bases(book: Book, panel: Panel) -> dict[str, Over]:
    """What times are divided by: Full-FT, and PEFT where it is there."""
    found: dict[str, Over] = {"Full-FT": book.ratio}
    if any((c.method, c.impl) == ("lora", "peft") for c in panel.cases):
        found[PEFT] = lambda case, pass_, clock: over_peft(book, case, pass_, clock)
    return found


def mean(ratios: Sequence[Ratio]) -> Estimate | None:
    """The geometric mean of the ratios that have a value, with the interval that their draws give it; None of none."""
    found = [r for r in ratios if r.value]
    if not found:
        return None
    value = exp(sum(float(np.log(r.value.value)) for r in found if r.value) / len(found))
    if any(r.draws is None and r.scope != "by definition" for r in found):
        return Estimate(value)
    logs = [np.zeros(1) if r.draws is None else np.log(np.maximum(r.draws, TINY)) for r in found]
    return interval(value, np.exp(sum(logs, np.zeros(1)) / len(logs)))


def peers_summary(folder: Folder, book: Book, panel: Panel) -> Table:
    """A line for each method and implementation: the means of its ratios over all layers, and a range."""
    bases = _bases(book, panel)
    lines = []
    for type_ in panel.types:
        cases = [case for case in panel.in_order if panel.labels[case] == type_]
        timed = sum(any(book.get(c, p, panel.clock).time for p in PASSES) for c in cases)
        groups = [_mean_words([[over(c, p, panel.clock) for c in cases] for p in PASSES]) for over in bases.values()]
        lines.append(((type_,), ((str(timed),), *groups)))
    return Table(
        title(folder, "Methods and implementations over all layers", panel),
        "Geometric means of a training type's ratios over the layers and groups of layers that have one, and the range "
        f"of forward-backward's. {_words(folder, book, panel)}",
        ("Training type",),
        (("Layers", ("",)), *((f"Time / {name}", (*PASSES, "range")) for name in bases)),
        tuple(lines),
    )


def _mean_words(passes: Sequence[Sequence[Ratio]]) -> tuple[str, ...]:
    """The mean of each pass over all layers, then the range of the last."""
    words = [_mean_word(ratios) for ratios in passes]
    values = [r.value.value for r in passes[-1] if r.value]
    return (*words, f"{min(values):.2f} to {max(values):.2f}" if len({*values}) > 1 else words[-1])


def _mean_word(ratios: Sequence[Ratio]) -> str:
    found = mean(ratios)
    if found is None:
        return next((r.word for r in ratios), "not measured")
    if all(r.scope == "by definition" for r in ratios if r.value):
        return "1"
    return with_interval(found, RATIO_PLACES) + (f" {NOISY}" if any(r.noisy for r in ratios) else "")


def peers_table(folder: Folder, book: Book, panel: Panel) -> Table:
    """A line for each layer, or group of layers, and training type: its time in ms, and its ratios pass by pass."""
    bases = _bases(book, panel)
    lines = []
    for case in panel.in_order:
        groups: list[tuple[str, ...]] = [(time_word(book.get(case, PASSES[-1], panel.clock)),)]
        groups += [tuple(ratio_word(over(case, p, panel.clock)) for p in PASSES) for over in bases.values()]
        lines.append((panel.where(case), tuple(groups)))
    return Table(
        title(folder, "Methods and implementations by layer", panel),
        _words(folder, book, panel),
        panel.lead,
        (("Forward-backward (ms)", ("",)), *((f"Time / {name}", PASSES) for name in bases)),
        tuple(lines),
    )


def _words(folder: Folder, book: Book, panel: Panel) -> str:
    """What a table of peers holds constant, and what its ratios divide by."""
    words = [caption(folder, book, panel.cases, panel.clock), ratio_note(book, panel)]
    if PEFT in _bases(book, panel):
        words.append("Ratios to PEFT divide LoRA's times by those of LoRA peft at equal rank, alpha and dropout.")
    if any(c.layer and "." in c.layer and c.layer.rpartition(".")[2] in ("qkv", "gate_up") for c in panel.cases):
        words.append("qkv and gate_up are groups of layers that read the same x, run one after the other or as one.")
    return " ".join(words)


def peers_notes(folder: Folder) -> list[Block]:
    """What the rows of single layers remark, and which of them have no time and why; equal ones told once."""
    rows = [(read_case(row), row) for row in folder.rows if row.get("level") == "linear"]
    names = labels([case for case, _ in rows])
    found: dict[tuple[str, str, str], dict[str, dict[str, None]]] = {}  # to the passes of each layer
    for case, row in rows:
        status, detail = text(row.get("status")) or "ok", text(row.get("detail"))
        if status != "ok" or detail:
            by_layer = found.setdefault((status, names[case], detail or "no detail recorded"), {})
            by_layer.setdefault(case.subject, {})[text(row.get("pass")) or "all passes"] = None
    total = len({case.subject for case, _ in rows})
    said: dict[bool, list[str]] = {True: [], False: []}
    for (status, name, detail), by_layer in found.items():
        together: dict[tuple[str, ...], list[str]] = {}  # layers by their passes
        for layer, passes in by_layer.items():
            together.setdefault(tuple(passes), []).append(layer)
        for which, layers in together.items():
            where = f"all {total} layers" if len(layers) == total > 1 else listed(layers)
            parts = [name, *([] if {*PASSES} <= {*which} else [listed(list(which))]), where]
            said[status == "ok"].append(f"{'' if status == 'ok' else status + ': '}{', '.join(parts)}: {detail}")
    blocks: list[Block] = []
    for heading, lines in (("Remarks", said[True]), ("What could not be timed", said[False])):
        blocks += [Heading(heading), Items(tuple(sorted(lines)))] if lines else []
    return blocks


def peers_rows(folder: Folder, book: Book) -> list[dict[str, object]]:
    """One line for each single layer x pass x clock: the axes, the time, and both ratios, unrounded."""
    details = {(read_case(row), row.get("pass"), row.get("clock")): text(row.get("detail")) for row in folder.rows}
    lines: list[dict[str, object]] = []
    for (case, pass_, clock), cell in book.cells.items():
        if case.level != "linear":
            continue
        line: dict[str, object] = {name: getattr(case, name) for name in Case.__dataclass_fields__}
        time = cell.time or Estimate(float("nan"))
        line |= {
            "pass": pass_, "clock": clock, "median_ms": time.value, "ci_low_ms": time.low, "ci_high_ms": time.high,
            "n": cell.n or None, "processes": cell.processes or None, "noisy": cell.noisy if cell.time else None,
            "status": cell.status, "detail": cell.detail or details.get((case, pass_, clock)),
        }  # fmt: skip
        for name, ratio in (("full", book.ratio(case, pass_, clock)), ("peft", over_peft(book, case, pass_, clock))):
            over = ratio.value or Estimate(float("nan"))
            line |= {f"ratio_to_{name}": over.value, f"{name}_ci_low": over.low, f"{name}_ci_high": over.high}
            line |= {f"{name}_scope": ratio.scope or None}
        lines.append(line)
    return lines


def write_peers(
    folder: Folder, book: Book, found: Sequence[Panel], head: Sequence[Block], notes: Sequence[Block], where: Path
) -> None:
    """Writes peers.md, a table over all layers and one by layer for each clock, and peers.csv: an empty cell there
    means not measured."""
    import pandas as pd

    chosen = [panel for panel in found if is_peers(panel)]
    tables = [make(folder, book, panel) for make in (peers_summary, peers_table) for panel in chosen]
    (where / FILES[0]).write_text(markdown([*head, *tables, *notes, *peers_notes(folder)]), encoding="utf-8")
    frame = pd.DataFrame(peers_rows(folder, book))
    for name in ("n", "processes"):
        frame[name] = frame[name].astype("Int64")  # pandas' integers that may be missing
    frame.to_csv(where / FILES[1], index=False, lineterminator="\n")
