"""What a folder answers, in plain sentences."""

from collections.abc import Sequence

from bench.case import Case
from bench.case.schema import BASELINE
from bench.methods.registry import methods
from bench.record.numbers import with_interval
from plots.data.labels import distinct, listed, method_label, shape_word
from plots.data.panels import Panel
from plots.data.results import Ratio, Results
from plots.data.strategies import Strategy
from plots.data.training_runs import paper_ratio
from plots.text.captions import panel_place, place
from plots.text.numbers import difference_word, ratio_word


def headline(results: Results, panels: Sequence[Panel], strategies: Sequence[Strategy]) -> str:
    """One plain sentence from the data: of optimizer steps where they were timed, else of the first panel in which a
    ratio could be formed."""
    if said := _strategies_said(results, strategies):
        return said
    for panel in panels:
        if ratios := _ratios_said(panel):
            where = f"{panel_place(panel)}, {panel.precision}, clock {panel.clock}"
            return f"{where[0].upper()}{where[1:]}: {listed(ratios)}."
    if not results.cases:
        return "Nothing has been measured in this folder yet."
    if not any(cell.time for cell in results.cells.values()):
        statuses = distinct(cell.status for cell in results.failures.values())
        return (
            f"None of the {len(results.cases)} cases gave a time (status {listed(statuses)}): there is no answer yet."
        )
    return "No ratio to Full-FT could be formed: Full-FT and another method are needed at equal axes."


def causes(panels: Sequence[Panel]) -> list[str]:
    """A sentence a method on where its difference to Full-FT comes from, for the cases that the headline tells of."""
    for panel in panels:
        chosen = _chosen(panel)
        if chosen:  # the headline tells of this panel, and so does this
            return [words for case in chosen if (words := _cause(panel, case))]
    return []


def _cause(panel: Panel, case: Case) -> str:
    found, base = panel.breakdown(case, "forward-backward"), panel.results.baseline(case)
    beyond = found.beyond
    if not (base and found.share and beyond.eager and beyond.gpu and beyond.gap):
        return ""
    return (
        f"{panel.labels[case]}'s forward-backward on {case.subject} at {shape_word(case.size)} differs from "
        f"{panel.labels[base]}'s by {difference_word(beyond.eager)} ms: {difference_word(beyond.gpu)} ms of GPU work "
        f"and {difference_word(beyond.gap)} ms of launch gap. Launch gaps are {with_interval(found.share, 1)} % of "
        f"its own time{' (noisy)' if beyond.noisy else ''}."
    )


def _chosen(panel: Panel) -> dict[Case, list[Ratio]]:
    """The cases that the headline tells of, one a method, each with the ratios of all cases of its training type.

    Of a method it is the first training type, at the longest time: the largest model at the largest size.
    """
    chosen: dict[Case, list[Ratio]] = {}
    for method in [m for m in methods() if m != BASELINE]:
        ratios = {c: r for c in panel.cases if c.method == method and (r := panel.ratio(c)).value}
        types = [t for t in panel.types if any(panel.labels[c] == t for c in ratios)]
        if types:
            found = {c: r for c, r in ratios.items() if panel.labels[c] == types[0]}
            times = {c: panel.time(c, "forward-backward").time for c in found}
            chosen[max(found, key=lambda c: t.value if (t := times[c]) else 0.0)] = list(found.values())
    return chosen


def _ratios_said(panel: Panel) -> list[str]:
    """'LoRA eager took 1.31 [1.29, 1.33] times Full-FT's forward-backward on ...' for each case that is told of."""
    said: list[str] = []
    for case, ratios in _chosen(panel).items():
        ratio, base = panel.ratio(case), panel.results.baseline(case)
        assert ratio.value is not None and base is not None, "a case with a ratio has both"
        values = [r.value.value for r in ratios if r.value]
        over = f" {panel.labels[base]}'s forward-backward" if not said else ""
        many = f"; {min(values):.2f} to {max(values):.2f} over all {len(values)} cases" if len(values) > 1 else ""
        said.append(
            f"{panel.labels[case]} took {with_interval(ratio.value)} times{over} on {case.subject} at "
            f"{shape_word(case.size)} (interval {ratio.scope}{', noisy' if ratio.noisy else ''}{many})"
        )
    return said


def _strategies_said(results: Results, strategies: Sequence[Strategy]) -> str:
    """What the strategies take of LoRA's time, for the first model with a ratio, in a clause for each."""
    for model in dict.fromkeys(s.case.model for s in strategies):
        said = [_strategy_said(s) for s in strategies if s.case.model == model and s.case.method == "paca"]
        if told := list(dict.fromkeys(filter(None, said))):
            first = strategies[0]
            where = f"{place(results.folder, 'model')}, {first.case.precision}, clock {first.step.clock}"
            over = f"an optimizer step of {model} took, of {method_label('lora')}'s time on all layers"
            return f"{where[:1].upper()}{where[1:]}: {over}: {'; '.join(told)}."
    return ""


def _strategy_said(strategy: Strategy) -> str:
    """'PaCA eager 0.83 [0.82, 0.84] (the paper: 0.834)'; nothing where there is no ratio."""
    if strategy.to_lora.value is None:
        return ""
    paper = paper_ratio(strategy.paper) if strategy.paper else None
    papers = f" (the paper: {paper:.3f})" if paper else ""
    some_layers = strategy.case.trainable_layers != "all" and strategy.to_same_layers.value is not None
    there = f", and {ratio_word(strategy.to_same_layers)} of LoRA's on the same layers" if some_layers else ""
    return f"{strategy.name} {strategy.how} {ratio_word(strategy.to_lora)}{papers}{there}"
