"""Table 2 as the paper lays it out, measured and published side by side, and an optimizer step by its parts."""

from collections.abc import Sequence

from plots.data.case import METHODS, Case
from plots.data.load import Folder
from plots.data.panels import Table
from plots.data.results import Book, Cell
from plots.data.strategies import Timed, epoch, epoch_word, timed_cases
from plots.data.training_runs import (
    EXAMPLES,
    LENGTH,
    MODEL,
    SCORES,
    Published,
    Run,
    clock_word,
    is_papers,
    line_of,
    lora_run,
    paper_ratio,
    published,
    steps_of,
)
from plots.text.captions import NOISY, caption, distinct, listed, place, ratio_word, time_word

Line = tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]  # lead cells, groups of cells

SHORT = {"humanities": "Hums.", "stem": "STEM", "social sciences": "Social", "other": "Other", "average": "Avg."}


def table2(folder: Folder | None, book: Book | None, runs: Sequence[Run], examples: int) -> Table:
    """The paper's Table 2: a line for each strategy and way of computing it, and one for each run."""
    timed = timed_cases(book) if book else []
    lines = []
    models = list(dict.fromkeys([*(str(t.case.model) for t in timed), *(r.subject for r in runs)]))
    for model in models:
        of_model, here = [t for t in timed if t.case.model == model], [r for r in runs if r.subject == model]
        for paper in published():
            mine = [t for t in of_model if t.paper == paper]
            ran = [r for r in here if line_of(r.strategy, r.method, r.layers) == paper]
            lines += _lines(model, paper.strategy, paper, mine, ran, runs, examples, book)
        others = [r for r in here if line_of(r.strategy, r.method, r.layers) is None]
        for run in others:
            lines += _lines(model, run.strategy or run.path.name, None, [], [run], runs, examples, book)
    told = [
        "Measured and published side by side; an empty cell was not measured, or not published. The paper trained "
        f"{MODEL} on an A6000; its hours and accuracies stand beside that model alone, its ratios to LoRA everywhere."
    ]
    if timed:
        told += [projection(timed, examples), _ratios(), _scene(folder, book, timed)]
    if runs:
        told.append(_runs_note(runs))
    return Table(
        "Table 2: training time and accuracy",
        " ".join(filter(None, told)),
        ("Model", "Strategy", "Computed as"),
        (
            ("Training time, one epoch", ("paper", "projected", "trained")),
            ("Ratio to LoRA", ("paper", "here")),
            *((SHORT[name], ("paper", "here")) for name in SCORES),
        ),
        tuple(lines),
    )


def _lines(
    model: str, name: str, paper: Published | None, timed: Sequence[Timed], ran: Sequence[Run], runs: Sequence[Run],
    examples: int, book: Book | None,
) -> list[Line]:  # fmt: skip
    theirs = paper is not None and is_papers(model)
    took = clock_word(paper.seconds) if paper and theirs and paper.seconds else ""
    ratio = paper_ratio(paper) if paper else None
    scores = [f"{paper.scores[s]:g}" if paper and theirs else "" for s in SCORES]
    lines: list[Line] = []
    told = f"{ratio:.3f}" if ratio else ""
    for one in timed:
        assert book is not None
        word = epoch_word(epoch(one, examples)) if one.step.time else one.step.status
        here = ratio_word(book.over(one.case, one.lora, "LoRA", "step", one.step.clock))
        groups = ((took, word, ""), (told, here), *((score, "") for score in scores))
        lines.append(((model, name, one.how), groups))
    for run in ran:
        base = lora_run(run, runs)
        here = f"{run.step_s / base.step_s:.3f}" if run.step_s and base and base.step_s else ""
        found = [f"{run.scores[s]:.4g}" if s in run.scores else "" for s in SCORES]
        trained = clock_word(run.seconds) if run.seconds else ""
        groups = ((took, "", trained), (told, here), *zip(scores, found, strict=True))
        lines.append(((model, name, f"run {run.path.name}"), groups))
    if not lines:
        groups = ((took, "", ""), (told, ""), *((score, "") for score in scores))
        lines.append(((model, name, ""), groups))
    return lines


def projection(timed: Sequence[Timed], examples: int) -> str:
    """The formula of an epoch's time with its numbers, or why there is none."""
    case = timed[0].case
    per_step = case.batch * case.micro_steps
    steps = steps_of(examples, case.batch, case.micro_steps)
    if case.seq != LENGTH:
        return (
            f"No epoch is projected: these steps are of {case.seq} tokens an example, the paper's of {LENGTH}; what "
            "compares are ratios."
        )
    source = " (MMLU's auxiliary_train; the paper does not say how many it trained on)" if examples == EXAMPLES else ""
    return (
        f"Projected: ceil(examples / (batch x micro-steps)) x time of a step = ceil({examples} / ({case.batch} x "
        f"{case.micro_steps} = {per_step})) = {steps} steps, for {examples} examples{source}; reading data, "
        "evaluation and saving are not in it."
    )


def _ratios() -> str:
    return "Ratio here: time of a step over LoRA's on all layers, of the same way of computing it, 95 % intervals."


def _runs_note(runs: Sequence[Run]) -> str:
    told = []
    for run in runs:
        parts = [f"{run.examples} examples in {run.steps} steps" if run.examples and run.steps else "", run.by]
        parts += [run.model, f"on {run.device}" if run.device else ""]
        told.append(f"{run.path.name}: {', '.join(filter(None, parts)) or 'no details'}")
    return (
        "Trained: wall clock of a real training; its ratio is of the mean step, over that of a LoRA run of the same "
        "model on the same device, with equal batch, accumulation, length and precision, empty without one. "
        f"Runs: {'; '.join(told)}."
    )


def _scene(folder: Folder | None, book: Book | None, timed: Sequence[Timed]) -> str:
    if folder is None or book is None:
        return ""
    return caption(folder, book, [t.case for t in timed], timed[0].step.clock)


def parts_table(folder: Folder, book: Book, timed: Sequence[Timed]) -> Table:
    """A step by its parts, the whole beside their sum, both ratios to LoRA, and peak memory."""
    clock = timed[0].step.clock
    micro = listed(distinct(str(t.case.micro_steps) for t in timed))
    peft = [t.peft.impl for t in timed if t.peft]
    lines = []
    for one in timed:
        case, step = one.case, one.step
        parts = [book.get(case, pass_, clock) for pass_ in ("forward", "backward")]
        peak = book.peaks_mib.get(case)
        paper = paper_ratio(one.paper) if one.paper else None
        groups = (
            *((_part(cell, case.micro_steps),) for cell in parts),
            (_ms(step.optimizer_ms),),
            (_ms(step.refresh_ms) or ("none" if step.time else ""),),
            (time_word(step),),
            (_off(step),),
            (
                ratio_word(book.over(case, one.lora, "LoRA", "step", clock)),
                ratio_word(book.over(case, one.same_layers, "LoRA there", "step", clock)),
                *([ratio_word(book.over(case, one.peft, "PEFT", "step", clock))] if peft else []),
                f"{paper:.3f}" if paper else "",
            ),
            (f"{peak:.0f}" if peak else "",),
        )
        lines.append(((str(case.model), one.strategy, one.how), groups))
    words = (
        f"An optimizer step is {micro} micro-steps of forward and backward, AdamW, and PaCA's column refresh. Forward "
        "and backward were timed micro-step by micro-step and stand here times their number; optimizer and refresh "
        "were timed within whole steps. The whole step was timed apart from them, in one go: 'sum' is what the parts "
        "add up to, less the whole, in percent of it. Ratios are of whole steps; LoRA on the same layers tells what is "
        "PaCA's from what freezing brings, which the paper leaves out. "
    )
    return Table(
        f"An optimizer step by its parts: {place(folder, 'model')}",
        words + caption(folder, book, [t.case for t in timed], clock) + f" {NOISY} marks rows that were noisy.",
        ("Model", "Strategy", "Computed as"),
        (
            (f"Forward x {micro} (ms)", ("",)), (f"Backward x {micro} (ms)", ("",)), ("Optimizer (ms)", ("",)),
            ("Refresh (ms)", ("",)), ("Step (ms)", ("",)), ("Sum", ("",)),
            ("Ratio to LoRA", ("on all layers", "on the same", *([f"{peft[0]}'s"] if peft else []), "paper")),
            ("Peak (MiB)", ("",)),
        ),
        tuple(lines),
    )  # fmt: skip


def _part(cell: Cell, times: int) -> str:
    return cell.status if cell.time is None else time_word(cell, by=times)


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def off(step: Cell) -> float | None:
    """What the parts of a step add up to, less the whole, over the whole."""
    return None if step.time is None or step.parts_ms is None else step.parts_ms / step.time.value - 1


def _off(step: Cell) -> str:
    found = off(step)
    return "" if found is None else f"{100 * found:+.1f} %"


def answer2(book: Book, timed: Sequence[Timed], where: str) -> str:
    """What the strategies take of LoRA's time, for the first model with a ratio, in a clause for each."""
    for model in dict.fromkeys(t.case.model for t in timed):
        pairs = [(t, t.lora) for t in timed if t.case.model == model and t.case.method == "paca" and t.lora is not None]
        told = dict.fromkeys(_said(book, one, lora) for one, lora in pairs)
        if said := [words for words in told if words]:
            over = f"an optimizer step of {model} took, of {METHODS['lora']}'s time on all layers"
            return f"{where[:1].upper()}{where[1:]}: {over}: {'; '.join(said)}."
    return ""


def _said(book: Book, one: Timed, lora: Case) -> str:
    """'PaCA eager 0.83 ± 0.01 (the paper: 0.834)'; nothing where there is no ratio."""
    ratio = book.over(one.case, lora, "LoRA", "step", one.step.clock)
    if ratio.value is None:
        return ""
    paper = paper_ratio(one.paper) if one.paper else None
    papers = f" (the paper: {paper:.3f})" if paper else ""
    other = book.over(one.case, one.same_layers, "LoRA", "step", one.step.clock)
    there = one.same_layers != lora and other.value is not None
    return f"{one.strategy} {one.how} {ratio_word(ratio)}{papers}" + (
        f", and {ratio_word(other)} of LoRA's on the same layers" if there else ""
    )
