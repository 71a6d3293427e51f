"""table2.csv: the numbers of table2.md as tidy data, unrounded. An empty cell means not measured or not published."""

from collections.abc import Sequence

from plots.data.run_ratios import as_the_papers, step_ratio
from plots.data.strategies import Strategy
from plots.data.training_runs import (
    MODEL,
    SCORES,
    Published,
    Run,
    is_papers,
    paper_ratio,
    published,
    steps_of,
)
from plots.tables.summary_csv import axes_columns, ends

INTEGERS = ("n", "examples", "steps", "batch", "accumulation", "seq")  # columns of numbers that may be missing

TOLD = ("method", "trainable_layers", "impl", "rank", "alpha", "dropout", "precision")  # axes as text


def table2_rows(
    strategies: Sequence[Strategy], runs: Sequence[Run], examples: int, price: float | None = None
) -> list[dict[str, object]]:
    """One line a timed strategy, one a real run, and the paper's own lines, marked by the column `source`."""
    lines = [_strategy_row(strategy, examples, price) for strategy in strategies]
    lines += [_run_row(run, runs) for run in runs]
    return lines + [{"source": "paper", "model": MODEL, **_paper(line, everything=True)} for line in published()]


def _strategy_row(strategy: Strategy, examples: int, price: float | None) -> dict[str, object]:
    case, step, epoch = strategy.case, strategy.step, strategy.epoch(examples)
    told = axes_columns(case)
    line: dict[str, object] = {
        "source": "sweep", "model": case.model, "strategy": strategy.name,
        **{axis: told[axis] for axis in TOLD},
        "batch": case.batch, "accumulation": case.micro_steps, "seq": case.seq, "clock": step.clock,
        "status": step.status, "detail": step.detail or None,
        **{f"{p.replace('-', '_')}_ms": cell.time.value if cell.time else None for p, cell in strategy.micro.items()},
        "optimizer_ms": step.optimizer_ms, "refresh_ms": step.refresh_ms, "parts_ms": step.parts_ms,
        **ends(step.time, "step_ms", "step_ci_low_ms", "step_ci_high_ms"), "n": step.n or None,
        "noisy": step.noisy if step.time else None, "peak_mib": strategy.peak_mib,
        "examples": examples if epoch else None,
        "steps": steps_of(examples, case.batch, case.micro_steps) if epoch else None,
        **ends(epoch, "epoch_s", "epoch_ci_low_s", "epoch_ci_high_s"),
        **({"price_per_epoch": epoch.value * price / 3600} if epoch and price else {}),
    }  # fmt: skip
    ratios = {"ratio_to_lora": strategy.to_lora, "ratio_to_lora_on_the_same_layers": strategy.to_same_layers}
    for name, ratio in ratios.items():
        line |= ends(ratio.value, name, f"{name}_ci_low", f"{name}_ci_high")
    return line | _paper(strategy.paper, is_papers(str(case.model)))


def _run_row(run: Run, runs: Sequence[Run]) -> dict[str, object]:
    paper = run.paper
    line: dict[str, object] = {
        "source": f"run {run.path.name}", "model": run.model, "strategy": run.strategy, "method": run.method,
        "trainable_layers": run.layers, "examples": run.examples, "steps": run.steps, "trained_s": run.seconds,
        **ends(step_ratio(run, runs), "ratio_to_lora", "ratio_to_lora_ci_low", "ratio_to_lora_ci_high"),
        "final_loss": run.final_loss, "tokens_per_s": run.tokens_per_s, "peak_mib": run.peak_mib,
    }  # fmt: skip
    line |= {_column(name): run.scores.get(name) for name in SCORES}
    line |= {f"{_column(name)}_se": run.errors.get(name) for name in SCORES}
    beside = _paper(paper, is_papers(run.model))
    return line | (beside if as_the_papers(run, paper) else {**beside, "paper_ratio_to_lora": None})


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
