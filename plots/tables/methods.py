"""Methods side by side: what each trains, its times and memory, its ratios to Full-FT and to LoRA; and what an option
of a training costs."""

from collections.abc import Sequence

from bench.case import Case
from plots.data.methods import (
    compares_methods,
    option_words,
    over_full,
    over_lora,
    plainest,
    trained_values,
    without_options,
)
from plots.data.panels import Panel
from plots.data.results import MICRO_PASSES, Results
from plots.render.blocks import Table
from plots.tables.summary_csv import axes_columns, cell_columns, ends
from plots.tables.throughput import PEAK, peak_word
from plots.text.captions import caption, title
from plots.text.numbers import ratio_word, time_word

BOTH, STEP = "forward-backward", "step"
LORA = "LoRA eager"


def methods_table(panel: Panel) -> Table:
    """A line for each model, batch x length and training type."""
    results, trained = panel.results, trained_values(panel.results)
    heavy = any(case in results.peaks_mib for case in panel.cases)
    passes = (*MICRO_PASSES, *[STEP] * _stepped(panel))
    ratios = tuple(p for p in (BOTH, STEP) if p in passes)
    lines = []
    for case in panel.in_order:
        words = [f"{trained[case]:,}" if case in trained else ""]
        words += [time_word(panel.time(case, p)) for p in passes]
        words += [_peak(panel, case)] * heavy
        words += [ratio_word(over(results, case, p, panel.clock)) for over in (over_full, over_lora) for p in ratios]
        lines.append((*panel.where(case), *words))
    table = Table(
        title("Methods", panel),
        f"{_notes(panel)} {caption(panel)}",
        panel.lead,
        (
            ("Trained values", ()), ("Time (ms)", passes), *[(PEAK, ())] * heavy,
            ("Time / Full-FT", ratios), (f"Time / {LORA}", ratios),
        ),
        tuple(lines),
    )  # fmt: skip
    return table.without_empty_columns()


def options_table(panel: Panel) -> Table | None:
    """A line for each case with an option that was measured without it, too: both sides, and one over the other."""
    results = panel.results
    pairs = [(case, base) for case in panel.in_order if (base := without_options(results, case))]
    passes = (BOTH, *[STEP] * _stepped(panel))
    heavy = any(case in results.peaks_mib for pair in pairs for case in pair)
    lines = []
    for case, base in pairs:
        words = []
        for pass_ in passes:
            words += [time_word(panel.time(c, pass_)) for c in (base, case)]
            words.append(ratio_word(results.over(case, base, "time without it", pass_, panel.clock)))
        words += [*(_peak(panel, c) for c in (base, case)), _part(results, case, base)] * heavy
        *place, _ = panel.where(case)
        lines.append((*place, panel.labels[base], option_words(case), *words))
    return Table(
        title("What an option costs", panel),
        "Each case with an option beside the same case without it. Checkpointing computes parts of forward again in "
        "backward and keeps less; an optimizer is of the step alone; fewer layers end backward early, and train less. "
        f"{caption(panel)}",
        (*panel.lead, "Option"),
        (
            *((f"{pass_.capitalize()} (ms)", ("without", "with", "ratio")) for pass_ in passes),
            *[(PEAK, ("without", "with", "part"))] * heavy,
        ),
        tuple(lines),
    ) if lines else None  # fmt: skip


def _stepped(panel: Panel) -> bool:
    return any((case, STEP, panel.clock) in panel.results.cells for case in panel.cases)


def _peak(panel: Panel, case: Case) -> str:
    failed = panel.results.failures.get(case)
    return failed.status if failed else peak_word(panel, case)


def _part(results: Results, case: Case, base: Case) -> str:
    ours, theirs = results.peaks_mib.get(case), results.peaks_mib.get(base)
    return f"{ours / theirs:.2f}" if ours and theirs else ""


def _notes(panel: Panel) -> str:
    """What the ratios divide by."""
    told = [
        "Times do not tell accuracy: methods differ in what they train, and so in what they can learn.",
        f"Time / Full-FT divides by Full-FT eager of all layers, Time / {LORA} by textbook LoRA of all layers, both "
        "without options, round by round where cases took turns.",
    ]
    for method, name in (("full", "Full-FT eager"), ("lora", LORA)):
        if not any(plainest(panel.results, case, method) for case in panel.cases):
            told.append(f"{name} was not measured here.")
    if STEP in [pass_ for _, pass_, _ in panel.results.cells]:
        told.append("A step is forward, backward, the optimizer, and PaCA's column refresh.")
    return " ".join(told)


def methods_rows(panels: Sequence[Panel]) -> list[dict[str, object]]:
    """One line for each case x pass x clock of the panels that compare methods: the axes, the time, and the ratios to
    Full-FT, to LoRA and to the case without its options, unrounded."""
    lines: list[dict[str, object]] = []
    for panel in filter(compares_methods, panels):
        results, trained = panel.results, trained_values(panel.results)
        passes = (*MICRO_PASSES, *[STEP] * _stepped(panel))
        for case in panel.in_order:
            bases = {"full": plainest(results, case, "full"), "lora": plainest(results, case, "lora")}
            bases["without_options"] = without_options(results, case)
            for pass_ in passes:
                line = axes_columns(case) | {"pass": pass_, "clock": panel.clock}
                line |= {"trained": trained.get(case), "peak_mib": results.peaks_mib.get(case)}
                line |= cell_columns(panel.time(case, pass_))
                for name, base in bases.items():
                    ratio = results.over(case, base, name, pass_, panel.clock)
                    line |= ends(ratio.value, f"ratio_to_{name}", f"{name}_ci_low", f"{name}_ci_high")
                lines.append(line)
    return lines
