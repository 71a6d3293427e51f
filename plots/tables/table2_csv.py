"""table2.csv: the numbers of table2.md as tidy data, unrounded. An empty cell means not measured or not published."""

from collections.abc import Sequence
from pathlib import Path

from plots.data.length_fit import Estimate
from plots.data.results import Book, Ratio
from plots.data.strategies import Timed, epoch, timed_cases
from plots.data.training_runs import (
    SCORES,
    Published,
    Run,
    is_papers,
    line_of,
    lora_run,
    paper_ratio,
    published,
    steps_of,
)

NONE = Estimate(float("nan"))


def tidy2(book: Book | None, runs: Sequence[Run], examples: int) -> list[dict[str, object]]:
    """One line a timed strategy, one a real run, and the paper's own lines, marked by the column `source`."""
    timed = timed_cases(book) if book else []
    lines = [_timed_line(book, one, examples) for one in timed] if book else []
    lines += [_run_line(run, runs) for run in runs]
    return lines + [{"source": "paper", "model": "llama2-7b", **_paper(line, everything=True)} for line in published()]


def _timed_line(book: Book, one: Timed, examples: int) -> dict[str, object]:
    case, step, clock = one.case, one.step, one.step.clock
    parts = {p: book.get(case, p, clock).time or NONE for p in ("forward", "backward", "forward-backward")}
    whole, whole_epoch = step.time or NONE, epoch(one, examples) or NONE
    ratios = {
        "ratio_to_lora": book.over(case, one.lora, "LoRA", "step", clock),
        "ratio_to_lora_on_the_same_layers": book.over(case, one.same_layers, "LoRA", "step", clock),
    }
    line: dict[str, object] = {
        "source": "sweep", "model": case.model, "strategy": one.strategy, "method": case.method,
        "trainable_layers": case.trainable_layers, "impl": case.impl, "rank": case.rank, "alpha": case.alpha,
        "dropout": case.dropout, "precision": case.precision, "batch": case.batch, "accumulation": case.micro_steps,
        "seq": case.seq, "clock": clock, "status": step.status, "detail": step.detail or None,
        **{f"{p.replace('-', '_')}_ms": found.value for p, found in parts.items()},
        "optimizer_ms": step.optimizer_ms, "refresh_ms": step.refresh_ms, "parts_ms": step.parts_ms,
        "step_ms": whole.value, "step_ci_low_ms": whole.low, "step_ci_high_ms": whole.high, "n": step.n or None,
        "noisy": step.noisy if step.time else None, "peak_mib": book.peaks_mib.get(case),
        "examples": examples if whole_epoch is not NONE else None,
        "steps": steps_of(examples, case.batch, case.micro_steps) if whole_epoch is not NONE else None,
        "epoch_s": whole_epoch.value, "epoch_ci_low_s": whole_epoch.low, "epoch_ci_high_s": whole_epoch.high,
    }  # fmt: skip
    for name, ratio in ratios.items():
        line |= _ratio(name, ratio)
    return line | _paper(one.paper, is_papers(str(case.model)))


def _ratio(name: str, ratio: Ratio) -> dict[str, object]:
    found = ratio.value or NONE
    return {name: found.value, f"{name}_ci_low": found.low, f"{name}_ci_high": found.high}


def _run_line(run: Run, runs: Sequence[Run]) -> dict[str, object]:
    base, paper = lora_run(run, runs), line_of(run.strategy, run.method, run.layers)
    line: dict[str, object] = {
        "source": f"run {run.path.name}", "model": run.model, "strategy": run.strategy, "method": run.method,
        "trainable_layers": run.layers, "examples": run.examples, "steps": run.steps, "trained_s": run.seconds,
        "ratio_to_lora": run.step_s / base.step_s if run.step_s and base and base.step_s else None,
    }  # fmt: skip
    return line | {_column(name): run.scores.get(name) for name in SCORES} | _paper(paper, is_papers(run.model))


def _paper(line: Published | None, everything: bool) -> dict[str, object]:
    """The paper's numbers; its ratio alone beside another model than its own."""
    if line is None:
        return {}
    found: dict[str, object] = {"paper_strategy": line.strategy, "paper_ratio_to_lora": paper_ratio(line)}
    if everything:
        found |= {"paper_gpu": line.gpu, "paper_s": line.seconds}
        found |= {f"paper_{_column(name)}": score for name, score in line.scores.items()}
    return found


def _column(name: str) -> str:
    return name.replace(" ", "_")


def write_table2(lines: Sequence[dict[str, object]], path: Path) -> None:
    """Writes table2.csv."""
    import pandas as pd

    frame = pd.DataFrame(list(lines))
    for name in ("n", "examples", "steps", "batch", "accumulation", "seq"):
        if name in frame:
            frame[name] = frame[name].astype("Int64")  # pandas' integers that may be missing
    frame.to_csv(path, index=False, lineterminator="\n")
