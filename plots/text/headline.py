"""What a folder answers, in plain sentences."""

from collections.abc import Iterable, Sequence

from bench.case import Case
from bench.case.schema import BASELINE
from bench.errors import listed
from bench.methods.registry import methods
from bench.record.numbers import with_interval
from bench.record.stats import RATIO_NOISY
from plots.data.labels import distinct, method_label, shape_word
from plots.data.panels import Panel
from plots.data.results import Ratio, Results
from plots.data.strategies import DISAGREE, Strategy
from plots.data.training_runs import paper_ratio
from plots.text.captions import panel_place, place
from plots.text.numbers import difference_word, ratio_word


def headline(results: Results, panels: Sequence[Panel], strategies: Sequence[Strategy]) -> str:
    """One plain sentence from the data: of optimizer steps where they were timed, else of the first panel in which a
    ratio could be formed. It says that there is no answer where the ratios are too noisy to tell."""
    if said := _strategies_said(results, strategies):
        return said
    if panel := _first(panels):
        if noise := _no_answer(panel.results, panel.ratios.values()):
            return noise
        where = f"{panel_place(panel)}, {panel.precision}, clock {panel.clock}"
        told = [f"{where[0].upper()}{where[1:]}: {listed(said)}." for said in [_ratios_said(panel)] if said]
        left = {c.method for c in panel.ratios} - {c.method for c in chosen(panel)} - {BASELINE}
        named = listed([method_label(m) for m in methods() if m in left])
        return " ".join([*told, *([f"No answer for {named}: too noisy."] if named else [])])
    if not results.cases:
        return "Nothing has been measured in this folder yet."
    if not any(cell.time for cell in results.cells.values()):
        statuses = distinct(cell.status for cell in results.failures.values())
        return (
            f"None of the {len(results.cases)} cases gave a time (status {listed(statuses)}): there is no answer yet."
        )
    if not any(cell.time for (_, pass_, _), cell in results.cells.items() if pass_ != "step"):
        return "No answer: it is told of forward and backward, and optimizer steps alone were timed here."
    return "No ratio to Full-FT could be formed: Full-FT and another method are needed at equal axes."


def causes(panels: Sequence[Panel]) -> list[str]:
    """A sentence a method on where its difference to Full-FT comes from, for the cases that the headline tells of."""
    panel = _first(panels)
    if panel is None or _no_answer(panel.results, panel.ratios.values()):
        return []
    return [words for tell in (_cause, _on_a_cpu) for case in chosen(panel) if (words := tell(panel, case))]


def _first(panels: Sequence[Panel]) -> Panel | None:
    """The panel that the headline tells of."""
    return next((panel for panel in panels if {c.method for c in panel.ratios} & {*methods()} - {BASELINE}), None)


def _no_answer(results: Results, ratios: Iterable[Ratio]) -> str:
    """What stands in place of an answer where most of the ratios are noisy."""
    noisy = [ratio.noisy for ratio in ratios]
    if 2 * sum(noisy) <= len(noisy):
        return ""
    wait = " --wait-quiet 10m" if results.folder.is_cpu else ""
    return (
        f"No answer: too noisy ({sum(noisy)} of {len(noisy)} ratios are uncertain by more than {100 * RATIO_NOISY:.0f} "
        f"%). Measure again with --fresh{wait}, on a quieter machine, or in more rounds."
    )


def _on_a_cpu(panel: Panel, case: Case) -> str:
    """Why LoRA is faster on a CPU although the paper has it slower; nothing where it is not."""
    found, base = panel.ratio(case).value, panel.results.baseline(case)
    faster = found is not None and found.high is not None and found.high < 1
    if not (panel.results.folder.is_cpu and case.method == "lora" and faster and base):
        return ""
    return (
        f"{panel.labels[case]} is faster than {panel.labels[base]} here, although the paper has LoRA slower on an "
        "A100. A CPU is bound by arithmetic. Full fine-tuning computes three GEMMs of a layer's size, forward, dX and "
        "dW: 6MNK operations. LoRA leaves out dW, so it computes 4MNK and a thin branch, which costs little beside "
        "them, and a CPU has no kernel launches to wait for. On a fast GPU the branch's small kernels and their "
        "launches dominate: what the paper describes is an effect of fast GPUs."
    )


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


def chosen(panel: Panel) -> dict[Case, list[Ratio]]:
    """The cases that the headline tells of, one a method, each with the ratios of all cases of its training type.
    Ratios that are too wide to be results are left out.

    Of a method it is the first training type, at the longest time: the largest model at the largest size.
    """
    told: dict[Case, list[Ratio]] = {}
    for method in [m for m in methods() if m != BASELINE]:
        ratios = {c: r for c, r in panel.ratios.items() if c.method == method and r.tells}
        types = [t for t in panel.types if any(panel.labels[c] == t for c in ratios)]
        if types:
            found = {c: r for c, r in ratios.items() if panel.labels[c] == types[0]}
            times = {c: panel.time(c, "forward-backward").time for c in found}
            told[max(found, key=lambda c: t.value if (t := times[c]) else 0.0)] = list(found.values())
    return told


def _ratios_said(panel: Panel) -> list[str]:
    """'LoRA eager took 1.31 [1.29, 1.33] times Full-FT's forward-backward on ...' for each case that is told of."""
    said: list[str] = []
    for case, ratios in chosen(panel).items():
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
        own = [s for s in strategies if s.case.model == model and s.case.method == "paca"]
        if noise := _no_answer(results, (s.to_lora for s in own if s.to_lora.value)):
            return noise
        said = [_strategy_said(s) for s in own if s.to_lora.tells]
        if told := list(dict.fromkeys(filter(None, said))):
            first = strategies[0]
            where = f"{place(results.folder, 'model')}, {first.case.precision}, clock {first.step.clock}"
            over = f"an optimizer step of {model} took, of {method_label('lora')}'s time on all layers"
            return f"{where[:1].upper()}{where[1:]}: {over}: {'; '.join(told)}."
    off = [s for s in strategies if s.to_lora.word.endswith(DISAGREE)]
    return f"No answer: {DISAGREE} in {len(off)} of {len(strategies)} optimizer steps." if off else ""


def _strategy_said(strategy: Strategy) -> str:
    """'PaCA eager 0.83 [0.82, 0.84] (the paper: 0.834)'."""
    paper = paper_ratio(strategy.paper) if strategy.paper else None
    papers = f" (the paper: {paper:.3f})" if paper else ""
    some_layers = strategy.case.trainable_layers != "all" and strategy.to_same_layers.tells
    there = f", and {ratio_word(strategy.to_same_layers)} of LoRA's on the same layers" if some_layers else ""
    return f"{strategy.name} {strategy.how} {ratio_word(strategy.to_lora)}{papers}{there}"
