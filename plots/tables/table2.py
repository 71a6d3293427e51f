"""Table 2 as the paper lays it out, measured and published side by side, and an optimizer step by its parts."""

from collections.abc import Sequence

from bench.errors import listed
from bench.record.numbers import with_interval
from plots.data.labels import distinct
from plots.data.results import Results
from plots.data.run_ratios import as_the_papers, step_ratio
from plots.data.strategies import BETWEEN, DISAGREE, Strategy
from plots.data.training_runs import (
    EXAMPLES,
    LENGTH,
    MODEL,
    SCORES,
    Published,
    Run,
    clock_word,
    duration_word,
    is_papers,
    paper_ratio,
    published,
    steps_of,
)
from plots.render.blocks import Table
from plots.text.captions import conditions_of, place
from plots.text.numbers import RATIOS_OF_RUNS, epoch_word, ratio_word, run_ratio_word, score_words, time_word

SHORT = {"humanities": "Hums.", "stem": "STEM", "social sciences": "Social", "other": "Other", "average": "Avg."}
OFF = (
    f"'{DISAGREE.capitalize()}' stands in place of a ratio where the intervals of a step's sum of parts and of the "
    f"whole lie apart by more than {100 * BETWEEN:.0f} %; of the parts, forward-backward alone has an interval. "
)
LEAD = ("Model", "Strategy", "Computed as")


def table2(results: Results | None, strategies: Sequence[Strategy], runs: Sequence[Run], examples: int) -> Table:
    """The paper's Table 2: a line for each strategy and way of computing it, and one for each run."""
    lines = []
    price = results.price if results else None
    for model in dict.fromkeys([*(s.case.subject for s in strategies), *(r.subject for r in runs)]):
        of_model = [s for s in strategies if s.case.subject == model]
        lines_of_runs = [(r.paper, r) for r in runs if r.subject == model]
        for paper in published():
            timed = [_timed_line(model, paper, s, examples, price) for s in of_model if s.paper == paper]
            ran = [_run_line(model, paper.strategy, paper, r, runs) for line, r in lines_of_runs if line == paper]
            lines += timed + ran or [_line(model, paper.strategy, paper)]
        others = [run for line, run in lines_of_runs if line is None]
        lines += [_run_line(model, run.strategy or run.path.name, None, run, runs) for run in others]
    told = [
        "Measured and published side by side; an empty cell was not measured, or not published. The paper trained "
        f"{MODEL} on an A6000; its hours and accuracies stand beside that model alone, its ratios to LoRA beside every "
        "timed strategy, and beside a run of that model with the paper's settings."
    ]
    if results and strategies:
        told.append(_projection(strategies[0], examples))
        if price and any(s.epoch(examples) for s in strategies):
            told.append(f"The price is that of the projected hours at {price:.12g} an hour (--price).")
        told.append(
            "Ratio here: time of a step over LoRA's on all layers, of the same way of computing it. "
            + (OFF if any(s.to_lora.word.endswith(DISAGREE) for s in strategies) else "")
        )
        told.append(_conditions(results, strategies))
    if runs:
        told.append(_runs_note(runs))
    groups = (
        ("Training time, one epoch", ("paper", "projected", "trained")),
        ("Price of an epoch", ()),
        ("Ratio to LoRA", ("paper", "here")),
        *((SHORT[name], ("paper", "here")) for name in SCORES),
    )
    whole = Table("Table 2: training time and accuracy", " ".join(told), LEAD, groups, tuple(lines))
    return whole.without_empty_columns()


def _timed_line(
    model: str, paper: Published, strategy: Strategy, examples: int, price: float | None
) -> tuple[str, ...]:
    step, epoch = strategy.step, strategy.epoch(examples)
    projected = epoch_word(epoch) if step.time else step.status
    cost = with_interval(epoch.times(price / 3600)) if epoch and price else ""
    return _line(model, paper.strategy, paper, strategy.how, projected, cost, ratio=ratio_word(strategy.to_lora))


def _run_line(model: str, name: str, paper: Published | None, run: Run, runs: Sequence[Run]) -> tuple[str, ...]:
    ratio = run_ratio_word(step_ratio(run, runs))
    trained = "" if not run.seconds else clock_word(run.seconds) if run.seconds >= 60 else duration_word(run.seconds)
    how, beside = f"run {run.path.name}", as_the_papers(run, paper)
    return _line(model, name, paper, how, trained=trained, ratio=ratio, scores=score_words(run), beside=beside)


def _line(
    model: str, name: str, paper: Published | None, how: str = "", projected: str = "", cost: str = "",
    trained: str = "", ratio: str = "", scores: dict[str, str] | None = None, beside: bool = True,
) -> tuple[str, ...]:  # fmt: skip
    """Ours beside what the paper has; its hours and accuracies beside its own model alone."""
    its_own = paper if is_papers(model) else None
    took = clock_word(its_own.seconds) if its_own and its_own.seconds else ""
    line = [model, name, how, took, projected, trained, cost, _paper_ratio(paper if beside else None), ratio]
    for score in SCORES:
        line += [f"{its_own.scores[score]:g}" if its_own else ""]
        line += [scores.get(score, "") if scores else ""]
    return tuple(line)


def _paper_ratio(paper: Published | None) -> str:
    ratio = paper_ratio(paper) if paper else None
    return f"{ratio:.3f}" if ratio else ""


def _projection(strategy: Strategy, examples: int) -> str:
    """The formula of an epoch's time with its numbers, or why there is none."""
    case = strategy.case
    steps = steps_of(examples, case.batch, case.micro_steps)
    if case.seq != LENGTH:
        return (
            f"No epoch is projected: these steps are of {case.seq} tokens an example, the paper's of {LENGTH}; what "
            "compares are ratios."
        )
    source = " (MMLU's auxiliary_train; the paper does not say how many it trained on)" if examples == EXAMPLES else ""
    return (
        f"Projected: ceil(examples / (batch x micro-steps)) x time of a step = ceil({examples} / ({case.batch} x "
        f"{case.micro_steps} = {case.batch * case.micro_steps})) = {steps} steps, for {examples} examples{source}; "
        "reading data, evaluation and saving are not in it."
    )


def _runs_note(runs: Sequence[Run]) -> str:
    told = []
    for run in runs:
        parts = [f"{run.examples} examples in {run.steps} steps" if run.examples and run.steps else "", run.by]
        parts += [run.model, f"on {run.device}" if run.device else ""]
        told.append(f"{run.path.name}: {', '.join(filter(None, parts)) or 'no details'}")
    return (
        f"Trained: wall clock of a real training. {RATIOS_OF_RUNS} An accuracy of a run stands with its standard "
        f"error. Runs: {'; '.join(told)}."
    )


def _conditions(results: Results, strategies: Sequence[Strategy]) -> str:
    return conditions_of(results, [s.case for s in strategies], strategies[0].step.clock)


def steps_table(results: Results, strategies: Sequence[Strategy]) -> Table:
    """A step by its parts, the whole beside their sum, both ratios to LoRA, and peak memory."""
    micro = listed(distinct(str(s.case.micro_steps) for s in strategies))
    peft = [s.peft.impl for s in strategies if s.peft]
    words = (
        f"An optimizer step is {micro} micro-steps of forward and backward, AdamW, and PaCA's column refresh. Forward "
        "and backward were timed micro-step by micro-step and stand here times their number; optimizer and refresh "
        "were timed within whole steps. The whole step was timed apart from them, in one go: 'sum' is what the parts "
        "add up to, less the whole, in percent of it. Ratios are of whole steps; LoRA on the same layers tells what is "
        f"PaCA's from what freezing brings, which the paper leaves out. {OFF}"
    )
    return Table(
        f"An optimizer step by its parts: {place(results.folder, 'model')}",
        words + _conditions(results, strategies),
        LEAD,
        (
            ("Parts (ms)", (f"forward x {micro}", f"backward x {micro}", "optimizer", "refresh")),
            ("Step (ms)", ()), ("Sum (%)", ()),
            ("Ratio to LoRA", ("on all layers", "on the same", *([f"{peft[0]}'s"] if peft else []), "paper")),
            ("Peak (MiB)", ()),
        ),
        tuple(_step_line(strategy, bool(peft)) for strategy in strategies),
    )  # fmt: skip


def _step_line(strategy: Strategy, with_peft: bool) -> tuple[str, ...]:
    step, off, peak = strategy.step, strategy.sum_off, strategy.peak_mib
    return (
        strategy.case.subject, strategy.name, strategy.how,
        *(time_word(strategy.micro[p], by=strategy.case.micro_steps) for p in ("forward", "backward")),
        _ms(step.optimizer_ms), _ms(step.refresh_ms) or ("none" if step.time else ""), time_word(step),
        "" if off is None else f"{100 * off:+.1f}", ratio_word(strategy.to_lora), ratio_word(strategy.to_same_layers),
        *([ratio_word(strategy.to_peft)] if with_peft else []), _paper_ratio(strategy.paper),
        f"{peak:.0f}" if peak else "",
    )  # fmt: skip


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"
