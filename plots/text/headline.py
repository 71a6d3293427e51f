"""What a folder answers, in plain sentences."""

from collections.abc import Iterable, Sequence

from bench.case import Case
from bench.case.schema import BASELINE
from bench.errors import listed
from bench.methods.registry import methods
from bench.record.numbers import with_interval
from bench.record.shortlist import Option, Over, fastest_of_each, leaders, sentence
from bench.record.stats import RATIO_NOISY, Estimate
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
        said = _said(panel)
        told = [f"{where[0].upper()}{where[1:]}: {said}"] if said else []
        left = {c.method for c in panel.ratios} - {c.method for c in chosen(panel)} - {BASELINE}
        named = listed([method_label(m) for m in methods() if m in left])
        return " ".join([*told, *([f"No answer for {named} there: too noisy."] if named else [])])
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
    panel = answer_panel(panels)
    if panel is None:
        return []
    cases = chosen(panel)
    return [words for tell in (_cause, _on_a_cpu) for case in cases if (words := tell(panel, case))]


def answer_panel(panels: Sequence[Panel]) -> Panel | None:
    """The panel that the headline tells of; None where it has no answer."""
    panel = _first(panels)
    return None if panel is None or _no_answer(panel.results, panel.ratios.values()) else panel


def _first(panels: Sequence[Panel]) -> Panel | None:
    """The first panel with a ratio."""
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


def choice(panel: Panel) -> tuple[list[Option], Over]:
    """The options among which the headline tells of: those at the axes of the longest time that has a ratio, which is
    the largest model at the largest size; and what the time of one is over that of another. Another optimizer is no
    option here: forward and backward are the same under each."""
    results = panel.results
    told = {c: results.baseline(c) for c, ratio in panel.ratios.items() if ratio.tells}
    times = {c: t.value for c, base in told.items() if base and (t := panel.time(base, "forward-backward").time)}
    alike = set(results.alike(max(times, key=lambda c: times[c]))) if times else set()
    return [o for c in panel.in_order if c in alike and not c.optimizer and (o := _option(panel, c))], _over(panel)


def _option(panel: Panel, case: Case) -> Option | None:
    time, ratio, mib = panel.time(case, "forward-backward").time, panel.ratio(case), panel.results.peaks_mib.get(case)
    if time is None:
        return None
    return Option(
        case, panel.labels[case], time, None if ratio.by_definition else ratio.value, mib / 1024 if mib else None
    )


def _over(panel: Panel) -> Over:
    def over(case: Case, other: Case) -> Estimate | None:
        return panel.results.over(case, other, "", "forward-backward", panel.clock).value

    return over


def chosen(panel: Panel) -> list[Case]:
    """The cases that the headline tells of: the fastest of each method but Full-FT."""
    fastest = fastest_of_each(o for o in choice(panel)[0] if o.tells)
    return [fastest[m].case for m in methods() if m in fastest and m != BASELINE]


def _said(panel: Panel) -> str:
    """'On gpt2-xl at 4 x 1024, LoRA triton is the fastest: 0.93 [0.92, 0.94] times Full-FT eager's ...'."""
    options, over = choice(panel)
    told = sentence(options, over)
    if not told:
        return ""
    best = leaders(options, over)[0]
    ratios = [panel.ratios[c] for c in panel.ratios if panel.labels[c] == best.name and panel.ratios[c].tells]
    values = [r.value.value for r in ratios if r.value]
    many = (
        f" {best.name} over all {len(values)} cases: {min(values):.2f} to {max(values):.2f}." if len(values) > 1 else ""
    )
    scopes = listed(list(dict.fromkeys(r.scope for r in ratios)))
    case = best.case
    interval = f" Intervals: {scopes}." if scopes else ""
    return f"on {case.subject} at {shape_word(case.size)}, {told}{many}{interval}"


def _strategies_said(results: Results, strategies: Sequence[Strategy]) -> str:
    """What the strategies take of LoRA's time, for the first model with a ratio, in a clause for each."""
    for model in dict.fromkeys(s.case.subject for s in strategies):
        own = [s for s in strategies if s.case.subject == model and s.case.method == "paca"]
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
