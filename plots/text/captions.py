"""Titles and captions: what was run, where, at which size, and every held constant of a table or figure."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from bench.case import AXES, OPTIONS, Case
from bench.case.names import short_name
from bench.case.schema import BASELINE
from bench.errors import listed
from plots.data.labels import PLACED, distinct, method_label, shapes_word, short_axis
from plots.data.load import Folder, text
from plots.data.panels import Panel
from plots.data.results import Results
from plots.render.blocks import Beside, Block, Figure, Table

SHORTLY = {"cpu-time": "time that the processor worked for the process; waiting for a core is not in it"}
LEVELS = {
    "linear": "single linear layers",
    "block": "one decoder block of each model",
    "model": "whole models with their loss",
}
# Compared axes that a caption does not tell in words of its own.
CONDITIONS = ("l2", *(name for name, axis in AXES.items() if axis.compared and name not in {*PLACED, "accumulation"}))
# What a method sets for itself.
OWN = tuple(
    name for name, axis in AXES.items() if axis.trains and not axis.compared and name not in {*PLACED, *OPTIONS}
)


def cut_models(models: Iterable[object]) -> str:
    """'4 blocks of tinyllama' where all are models cut to a few blocks, which their names say; else nothing."""
    found = [re.fullmatch(r"(.+)-(\d+)-blocks", model) for model in distinct(models)]
    told = [f"{match[2]} blocks of {match[1]}" for match in found if match]
    return listed(told) if told and len(told) == len(found) else ""


def level_words(folder: Folder, level: str) -> str:
    """What is timed in a few words, for titles."""
    what = {"linear": "linear layers", "block": "one decoder block", "model": "whole models"}.get(level, level)
    if level == "model":
        what = cut_models(row.get("model") for row in folder.rows if row.get("level") == level) or what
    return what


def place(folder: Folder, level: str) -> str:
    """Level and device in a few words, for titles."""
    what = level_words(folder, level)
    return f"{what} on a CPU, no GPU times" if folder.is_cpu else f"{what} on {folder.device}"


def panel_place(panel: Panel) -> str:
    """Level and device of a panel, for the titles of figures."""
    return place(panel.results.folder, panel.level)


def title(what: str, panel: Panel, clocks: bool = True) -> str:
    """'Forward and backward time: whole models on NVIDIA H100, bf16, clock eager'."""
    precision = f", {panel.precision}" if panel.precision else ""
    return f"{what}: {panel_place(panel)}{precision}" + (f", clock {panel.clock}" if clocks else "")


def scene(folder: Folder, cases: Sequence[Case]) -> str:
    """What was run, where and at which size: 'one decoder block of each model on a CPU, fp32, 1 x 64'."""
    cut = cut_models(c.model for c in cases if c.level == "model")
    levels = LEVELS | ({"model": f"{cut} at their real width, with head and loss"} if cut else {})
    what = listed([levels.get(level, level) for level in distinct(c.level for c in cases)])
    precisions = ", ".join(distinct(c.precision for c in cases))
    words = f"{what} on {folder.device}, {precisions}, {shapes_word(list(dict.fromkeys(c.size for c in cases)))}"
    return f"{words}: CPU times, no GPU times" if folder.is_cpu else words


def caption(panel: Panel, *clocks: str) -> str:
    """Every held constant of a panel under its own clock, or under those given."""
    return conditions_of(panel.results, panel.cases, *(clocks or (panel.clock,)))


def note(panel: Panel, reading: str, *clocks: str) -> str:
    """The line below a figure: how to read it, and the few conditions that its title leaves out."""
    held = ", ".join([*distinct(c.precision for c in panel.cases), f"clock {listed(clocks or (panel.clock,))}"])
    return f"{reading} In {held}; all conditions: see the tables' captions."


def conditions_of(results: Results, cases: Sequence[Case], *clocks: str) -> str:
    """Every held constant of a table or figure, in one paragraph."""
    folder, shown = results.folder, set(cases)
    steps = distinct(c.accumulation for c in cases)
    named = [f"{clock} ({SHORTLY[clock]})" if clock in SHORTLY else clock for clock in clocks]
    parts = [scene(folder, cases), *([f"clock{'s' if len(clocks) > 1 else ''} {listed(named)}"] if clocks else [])]
    values = {name: distinct(getattr(c, name) for c in cases) for name in CONDITIONS}
    values |= {name: distinct(getattr(c, name) or AXES[name].usual for c in cases)
               for name in OPTIONS if any(getattr(c, name) for c in cases)}  # fmt: skip
    parts += [f"{AXES[name].label}: {listed(told)}" for name, told in values.items() if told]
    if steps:
        parts.append(f"micro-steps to an optimizer step: {listed(steps)}; backward adds to gradients that are there")
    parts += _method_conditions(cases)
    parts += [f"the models' own dropout: {words}" for words in [_model_dropout(folder, cases)] if words]
    cells = [cell for key, cell in results.cells.items() if key[2] in clocks and key[0] in shown]
    counts = sorted({cell.n for cell in cells if cell.time})
    if counts:
        scopes = distinct(cell.measured.scope for cell in cells if cell.measured)
        count = " to ".join(dict.fromkeys([str(counts[0]), str(counts[-1])]))
        parts.append(f"each time is the median of {count} samples with its 95 % interval, {listed(scopes)}")
        ids = {case.case_id for case in cases}
        rows = [r for r in folder.rows if r.get("case_id") in ids and r.get("clock") in clocks]
        parts += _how_measured(folder, [row for row in rows if text(row.get("median_ms"))])
    versions = [f"{name} {folder.run[name]}" for name in ("torch", "triton", "transformers") if folder.run.get(name)]
    if folder.run.get("driver"):
        versions.append(f"driver {folder.run['driver']}")
    if versions:
        parts.append(", ".join(versions))
    if not folder.is_cpu:
        parts.append(f"clocks {folder.clocks_word}")
    parts += [f"measured {when}" for when in [_dates(folder)] if when]
    joined = "; ".join(parts)
    words = joined[:1].upper() + joined[1:] + "."
    results.conditions[words] = tuple(parts)
    return words


def conditions_once(
    blocks: Sequence[Block], results: Results, stated: tuple[str, ...] = ()
) -> tuple[list[Block], tuple[str, ...]]:
    """The blocks with no more than what differs from the stated conditions, which are those of the first that has any;
    and the stated conditions."""
    found: list[Block] = []
    for block in blocks:
        match block:
            case Table():
                words, stated = _once(block.caption, results, stated)
                found.append(replace(block, caption=words))
            case Beside():
                inner, stated = conditions_once(block.blocks, results, stated)
                found.append(replace(block, blocks=tuple(b for b in inner if isinstance(b, Figure | Table))))
            case _:
                found.append(block)
    return found, stated


def _once(words: str, results: Results, stated: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The words without the conditions that are stated, and what is stated after them."""
    told = max((told for told in results.conditions if told in words), key=len, default="")
    if not told:
        return words, stated
    stated = stated or results.conditions[told]
    own = [part for part in results.conditions[told] if part not in stated]
    instead = f"Conditions as stated, but {'; '.join(own)}." if own else ""
    return " ".join(words.replace(told, instead).split()), stated


def _how_measured(folder: Folder, rows: Sequence[dict[str, Any]]) -> list[str]:
    """In turns or alone, and with how many threads, of rows with times."""
    rounds = sorted({n for row in rows if (n := row.get("rounds"))})
    alone = any(not row.get("rounds") for row in rows)
    counts = " to ".join(dict.fromkeys(str(n) for n in (rounds[:1] + rounds[-1:])))
    how = [listed([f"measured in turns, {counts} rounds"] * bool(rounds) + ["measured alone"] * alone)]
    threads = distinct(row.get("threads") for row in rows) or distinct([folder.run.get("threads")])
    how += [f"{listed(threads)} thread{'' if threads == ['1'] else 's'}"] if folder.is_cpu and threads else []
    return [words for words in how if words]


def ratio_note(panel: Panel) -> str:
    """What the ratio divides by, and what its interval speaks for."""
    scopes = distinct(r.scope for c, r in panel.ratios.items() if c.method != BASELINE)
    if not scopes:
        return "No ratio to Full-FT could be formed."
    return (
        f"Ratios divide by {' or '.join(panel.baselines)} at equal level, model, layers, precision, batch, length and "
        f"clock, round by round where cases took turns; their 95 % interval is {' or '.join(scopes)}."
    )


def _method_conditions(cases: Sequence[Case]) -> list[str]:
    """'LoRA: rank 8, alpha 32, ...' for each method that sets axes of its own."""
    found = []
    for method in dict.fromkeys(c.method for c in cases if c.rank is not None):
        own = [c for c in cases if c.method == method]
        values = {axis: distinct(getattr(c, axis) or AXES[axis].usual for c in own) for axis in OWN}
        values |= {axis: [] for axis, told in values.items() if told == [AXES[axis].usual]}
        parts = [f"{short_axis(axis)} {' or '.join(told)}" for axis, told in values.items() if told]
        found.append(f"{method_label(method)}: {', '.join(parts)}")
    return found


def _model_dropout(folder: Folder, cases: Sequence[Case]) -> str:
    models = {case.model for case in cases}
    by_model: dict[str, str] = {}
    for row in folder.rows:
        value = text(row.get("model_dropout"))
        if row.get("model") in models and value is not None:
            by_model[str(row.get("model"))] = value
    if len(set(by_model.values())) <= 1:
        return next(iter(by_model.values()), "")
    return ", ".join(f"{short_name(model)} {value}" for model, value in by_model.items())


def _dates(folder: Folder) -> str:
    """The day, or the first and the last day, on which rows were measured."""
    days = sorted({str(row["measured_at"])[:10] for row in folder.rows if row.get("measured_at")})
    return " to ".join(dict.fromkeys([days[0], days[-1]])) if days else ""
