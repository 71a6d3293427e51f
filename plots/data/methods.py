"""Methods side by side: what each case is compared with, and which case it is without an option."""

from dataclasses import replace
from typing import Any

from bench.case import OPTIONS, Case, read_case
from bench.case.schema import BASELINE
from plots.data.labels import short_axis
from plots.data.panels import Panel
from plots.data.results import Ratio, Results

FEW = ("full", "lora", "paca")  # the tables of times suffice for these
TEXTBOOK = "eager"
# By axis, the value without it: the blocks that train, and what any method may be trained with.
USUAL: dict[str, Any] = {"trainable_layers": "all", **dict.fromkeys(OPTIONS)}


def compares_methods(panel: Panel) -> bool:
    """Blocks or models under other methods than the paper's, or under options of a training."""
    others = {c.method for c in panel.cases} - {*FEW}
    return panel.level != "linear" and (len(others) > 1 or any(c.has_options for c in panel.cases))


def option_words(case: Case) -> str:
    """'checkpointing full, layers lisa-1'; empty of a case without any."""
    found = {axis: getattr(case, axis) for axis, usual in USUAL.items() if getattr(case, axis) != usual}
    return ", ".join(f"{short_axis(axis)} {value}" for axis, value in found.items())


def without_options(results: Results, case: Case) -> Case | None:
    """The same case with all blocks training, nothing computed again, the usual optimizer and no compiler; None where
    that is no other one, or was not measured."""
    found = replace(case.plain, trainable_layers="all")
    return found if found != case and found in results.cases else None


def plainest(results: Results, case: Case, method: str) -> Case | None:
    """The textbook form of a method on all blocks and without options, measured beside the case; LoRA's with the usual
    scale. None where there is none."""
    alike = (c for c in results.beside(case) if (c.method, c.impl) == (method, TEXTBOOK) and c.scaling is None)
    return next((c for c in alike if not option_words(c)), None)


def over_full(results: Results, case: Case, pass_: str, clock: str) -> Ratio:
    """Time over that of Full-FT of all blocks, which for a case that trains some of them is another than the one at
    equal layers."""
    return results.over(case, plainest(results, case, BASELINE), "Full-FT", pass_, clock)


def over_lora(results: Results, case: Case, pass_: str, clock: str) -> Ratio:
    """Time over that of textbook LoRA on all blocks."""
    return results.over(case, plainest(results, case, "lora"), "LoRA eager", pass_, clock)


def shown_ratio(panel: Panel, case: Case | None) -> Ratio:
    """Forward-backward over Full-FT's: of all blocks where methods are compared, else at equal layers."""
    if case is None or not compares_methods(panel):
        return panel.ratio(case)
    return over_full(panel.results, case, "forward-backward", panel.clock)


def shown_types(panel: Panel) -> list[str]:
    """Training types without the one that those ratios are to."""
    if not compares_methods(panel):
        return panel.compared_types
    full = {panel.labels[c] for c in panel.cases if plainest(panel.results, c, BASELINE) == c}
    return [type_ for type_ in panel.types if type_ not in full]


def trained_values(results: Results) -> dict[Case, int]:
    """By case, as the rows have it."""
    rows = results.folder.rows
    return {read_case(row): int(count) for row in rows if (count := row.get("trainable_params")) is not None}
