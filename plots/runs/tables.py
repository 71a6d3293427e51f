"""The table of trainings: a line for each, with what it took and what it gave."""

from collections.abc import Sequence

from bench.errors import listed
from bench.record.numbers import with_interval
from plots.data.labels import distinct, method_label
from plots.data.run_ratios import as_the_papers, median_step, step_ratio
from plots.data.training_runs import Run, duration_word, paper_ratio
from plots.render.blocks import Table
from plots.runs.compared import base_method
from plots.text.numbers import run_ratio_word, score_words


def runs_table(runs: Sequence[Run]) -> Table:
    """Columns in which every line would be empty are left out."""
    method = base_method(runs)
    peaks = listed(distinct(run.peak_of for run in runs if run.peak_mib))
    words = "An empty cell was not measured. " + (f"Peak memory: {peaks}. " if peaks else "")
    if any(_papers(run) for run in runs):
        words += "The paper's ratio stands beside runs of its model with its settings alone."
    groups = (
        ("Examples", ()), ("Training time", ()), ("Median step (ms)", ()),
        (f"Ratio to {method_label(method)}", ("here", "paper")),
        ("Final loss", ()), ("Accuracy (%)", ()), ("Tokens/s", ()), ("Peak memory (GiB)", ()),
    )  # fmt: skip
    lines = tuple(_line(run, runs, method) for run in runs)
    return Table("Runs", words.strip(), ("Model", "Run"), groups, lines).without_empty_columns()


def _line(run: Run, runs: Sequence[Run], method: str) -> tuple[str, ...]:
    step = median_step(run)
    return (
        run.subject, run.name, f"{run.examples:,}" if run.examples else "",
        duration_word(run.seconds) if run.seconds else "",
        with_interval(step.estimate.times(1e3)) if step else "",
        run_ratio_word(step_ratio(run, runs, method)), _papers(run) if method == "lora" else "",
        "" if run.final_loss is None else f"{run.final_loss:.3f}", score_words(run).get("average", ""),
        f"{run.tokens_per_s:,.0f}" if run.tokens_per_s else "", f"{run.peak_mib / 1024:.2f}" if run.peak_mib else "",
    )  # fmt: skip


def _papers(run: Run) -> str:
    ratio = paper_ratio(run.paper) if run.paper and as_the_papers(run, run.paper) else None
    return f"{ratio:.3f}" if ratio else ""
