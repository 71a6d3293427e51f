"""Single layers: every method and implementation beside Full-FT and beside PEFT's LoRA."""

from collections.abc import Callable, Sequence
from math import exp

import numpy as np

from bench.case import Case, read_case
from bench.errors import listed
from bench.record.numbers import with_interval
from bench.record.stats import RATIO_NOISY, Estimate, Measured
from plots.data.labels import labels
from plots.data.load import Folder, text
from plots.data.panels import Panel
from plots.data.results import MICRO_PASSES, Ratio, Results
from plots.render.blocks import Block, Heading, Items, Table
from plots.tables.summary_csv import axes_columns, cell_columns, ends
from plots.text.captions import OWN, caption, ratio_note, title
from plots.text.numbers import marked, ratio_word, time_word

PEFT = "PEFT"
# In a ratio to PEFT as it is computed without a compiler; the adapters' dtype is the impl's own.
EQUAL = (*(axis for axis in OWN if axis != "adapter_dtype"), "gradient_checkpointing", "optimizer")
OTHER_METHOD = "none"
TINY = 1e-6  # draws around a very noisy median, known by its interval alone, may fall below zero

Over = Callable[[Case, str], Ratio]  # of a case and a pass


def over_peft(results: Results, case: Case, pass_: str, clock: str) -> Ratio:
    """Time of a LoRA case over impl peft's at equal axes, rank, alpha and dropout; of another method 'none'."""
    if case.method != "lora":
        return Ratio(OTHER_METHOD)
    alike = [c for c in results.alike(case) if _is_peft(c)]
    base = next((c for c in alike if all(getattr(c, axis) == getattr(case, axis) for axis in EQUAL)), None)
    return results.over(case, base, PEFT, pass_, clock)


def _is_peft(case: Case) -> bool:
    return (case.method, case.impl) == ("lora", "peft") and not case.compiles


def _bases(panel: Panel) -> dict[str, Over]:
    """What times are divided by: Full-FT, and PEFT where it is there."""
    found: dict[str, Over] = {"Full-FT": panel.ratio}
    if any(_is_peft(c) for c in panel.cases):
        found[PEFT] = lambda case, pass_: over_peft(panel.results, case, pass_, panel.clock)
    return found


def mean(ratios: Sequence[Ratio]) -> Estimate | None:
    """The geometric mean of the ratios that have a value, with the interval that their draws give it; None of none."""
    values = [r.value.value for r in ratios if r.value]
    if not values:
        return None
    mean_value = exp(sum(map(float, np.log(values))) / len(values))
    draws = [r.measured.draws for r in ratios if r.measured]
    known = [np.log(np.maximum(d, TINY)) for d in draws if d is not None]
    if len(known) < len(draws):
        return Estimate(mean_value)
    return Measured(mean_value, np.exp(sum(known, np.zeros(1)) / len(values))).estimate


def layers_summary(panel: Panel) -> Table:
    """A line for each method and implementation: the means of its ratios over all layers, and a range."""
    bases = _bases(panel)
    lines = []
    for type_ in panel.types:
        cases = [case for case in panel.in_order if panel.labels[case] == type_]
        timed = sum(any(panel.time(c, p).time for p in MICRO_PASSES) for c in cases)
        words = [
            word for over in bases.values() for word in _mean_words([[over(c, p) for c in cases] for p in MICRO_PASSES])
        ]
        lines.append((type_, str(timed), *words))
    return Table(
        title("Methods and implementations over all layers", panel),
        "Geometric means of a training type's ratios over the layers and groups of layers that have one, and the range "
        f"of forward-backward's. {_notes(panel)}",
        ("Training type",),
        (("Layers", ()), *((f"Time / {name}", (*MICRO_PASSES, "range")) for name in bases)),
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
    if all(r.by_definition for r in ratios if r.value):
        return "1"
    return marked(with_interval(found), not found.within(RATIO_NOISY))


def layers_table(panel: Panel) -> Table:
    """A line for each layer, or group of layers, and training type: its time in ms, and its ratios pass by pass."""
    bases = _bases(panel)
    passes = MICRO_PASSES if len(bases) == 1 else MICRO_PASSES[-1:]  # with two sets of ratios there is no room for all
    lines = [
        (*panel.where(case), *(time_word(panel.time(case, p)) for p in passes),
         *(ratio_word(over(case, p)) for over in bases.values() for p in MICRO_PASSES))
        for case in panel.in_order
    ]  # fmt: skip
    return Table(
        title("Time by layer", panel),
        _notes(panel),
        panel.lead,
        (("Time (ms)", passes), *((f"Time / {name}", MICRO_PASSES) for name in bases)),
        tuple(lines),
    )


def _notes(panel: Panel) -> str:
    """What a table of layers holds constant, and what its ratios divide by."""
    words = [caption(panel), ratio_note(panel)]
    if PEFT in _bases(panel):
        words.append("Ratios to PEFT divide LoRA's times by those of LoRA peft at equal rank, alpha and dropout.")
    if any(c.layer and "." in c.layer and c.layer.rpartition(".")[2] in ("qkv", "gate_up") for c in panel.cases):
        words.append("qkv and gate_up are groups of layers that read the same x, run one after the other or as one.")
    return " ".join(words)


def remarks(folder: Folder, linear: bool = True) -> list[Block]:
    """What the rows of single layers, or those of blocks and models, remark, and which of them have no time and why;
    equal ones told once."""
    rows = [(read_case(row), row) for row in folder.rows if (row.get("level") == "linear") == linear]
    names = labels([case for case, _ in rows])
    found: dict[tuple[str, str, str], dict[str, dict[str, None]]] = {}  # to the passes of each layer
    for case, row in rows:
        status, detail = text(row.get("status")) or "ok", text(row.get("detail"))
        if status != "ok" or detail:
            by_layer = found.setdefault((status, names[case], detail or "no detail recorded"), {})
            by_layer.setdefault(case.subject, {})[text(row.get("pass")) or "all passes"] = None
    total, what = len({case.subject for case, _ in rows}), "layers" if linear else "models"
    said: dict[bool, list[str]] = {True: [], False: []}
    for (status, name, detail), by_layer in found.items():
        together: dict[tuple[str, ...], list[str]] = {}  # layers by their passes
        for layer, passes in by_layer.items():
            together.setdefault(tuple(passes), []).append(layer)
        for which, layers in together.items():
            where = f"all {total} {what}" if len(layers) == total > 1 else listed(layers)
            parts = [name, *([] if {*MICRO_PASSES} <= {*which} else [listed(list(which))]), where]
            said[status == "ok"].append(f"{'' if status == 'ok' else status + ': '}{', '.join(parts)}: {detail}")
    blocks: list[Block] = []
    for heading, lines in (("Remarks", said[True]), ("What could not be timed", said[False])):
        blocks += [Heading(heading), Items(tuple(sorted(lines)))] if lines else []
    return blocks


def peers_rows(results: Results) -> list[dict[str, object]]:
    """One line for each single layer x pass x clock: the axes, the time, and both ratios, unrounded."""
    rows = results.folder.rows
    details = {(read_case(row), row.get("pass"), row.get("clock")): text(row.get("detail")) for row in rows}
    lines: list[dict[str, object]] = []
    for (case, pass_, clock), cell in results.cells.items():
        if case.level != "linear":
            continue
        line = axes_columns(case) | {"pass": pass_, "clock": clock} | cell_columns(cell)
        line["detail"] = cell.detail or details.get((case, pass_, clock))
        for name, ratio in (
            ("full", results.ratio(case, pass_, clock)),
            ("peft", over_peft(results, case, pass_, clock)),
        ):
            line |= ends(ratio.value, f"ratio_to_{name}", f"{name}_ci_low", f"{name}_ci_high")
            line |= {f"{name}_scope": ratio.scope or None}
        lines.append(line)
    return lines
