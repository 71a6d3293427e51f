"""table1.csv: the numbers of the tables as tidy data, unrounded."""

from collections.abc import Sequence
from pathlib import Path

from plots.data.breakdown import GPU_CLOCKS, Extra, Split
from plots.data.case import Case
from plots.data.length_fit import Estimate
from plots.data.load import Folder, text
from plots.data.panels import panels
from plots.data.paper import PaperRow, paper_row
from plots.data.results import Book
from plots.tables.breakdown import Splits
from plots.tables.efficiency import of_ceiling, over_floor, tflops


def tidy(folder: Folder, book: Book, splits: Splits) -> list[dict[str, object]]:
    """One line per case x pass x clock, numbers unrounded, with the ratio to Full-FT and the paper's own time.

    What only a GPU tells has columns where there is any.
    """
    lines: list[dict[str, object]] = []
    more: list[dict[str, object]] = []
    for panel in panels(book):
        for case in panel.cases:
            recorded = [p for p in ("step",) if (case, p, panel.clock) in book.cells]
            for pass_ in ("forward", "backward", "forward-backward", *recorded):
                lines.append(_tidy_line(folder, book, case, pass_, panel.clock))
                split = splits.get((case, pass_)) if panel.clock == "eager" else None
                more.append(_hardware(folder, book, case, pass_, panel.clock) | _split(split))
    filled = {name for line in more for name, value in line.items() if value is not None}
    return [line | {k: v for k, v in extra.items() if k in filled} for line, extra in zip(lines, more, strict=True)]


def _tidy_line(folder: Folder, book: Book, case: Case, pass_: str, clock: str) -> dict[str, object]:
    cell, ratio, paper = book.get(case, pass_, clock), book.ratio(case, pass_, clock), paper_row(case, clock)
    time, over = cell.time or Estimate(float("nan")), ratio.value or Estimate(float("nan"))
    axes = {name: getattr(case, name) for name in Case.__dataclass_fields__}
    return {
        "gpu": folder.run.get("gpu") or text(next((r.get("gpu") for r in folder.rows if r.get("gpu")), None)),
        **axes, "pass": pass_, "clock": clock,
        "median_ms": time.value, "ci_low_ms": time.low, "ci_high_ms": time.high, "n": cell.n or None,
        "processes": cell.processes or None, "noisy": cell.noisy if cell.time else None, "status": cell.status,
        "detail": cell.detail or None, "source": cell.source if cell.time else None,
        "ratio_to_full": over.value, "ratio_ci_low": over.low, "ratio_ci_high": over.high,
        "ratio_scope": ratio.scope or None, "refresh_ms": cell.refresh_ms,
        "paper_ms": _paper_ms(paper, pass_), "paper_ratio_to_full": paper.ratio if paper and "-" in pass_ else None,
        "paper_gpu": paper.gpu if paper else None,
    }  # fmt: skip


def _hardware(folder: Folder, book: Book, case: Case, pass_: str, clock: str) -> dict[str, object]:
    """What the work is, and on the GPU clocks how close it comes to what the hardware allows."""
    cell, facts, gpu = book.get(case, pass_, clock), book.get_facts(case, pass_), clock in GPU_CLOCKS
    floor, rate, part = (
        found.value if gpu and found else None
        for found in (over_floor(cell, facts), tflops(cell, facts), of_ceiling(folder, cell, facts))
    )
    known: dict[str, object] = {
        "launches": None if facts.launches is None else round(facts.launches),
        "flops": facts.flops,
        "floor_ms": facts.floor_ms,
    }
    known["peak_mib"] = book.peaks_mib.get(case)
    return known | {"times_floor": floor, "tflops": rate, "of_ceiling_percent": part}


def _split(split: Split | None) -> dict[str, object]:
    """Launch gap and difference to Full-FT, on the lines of clock eager."""
    extra = split.extra if split else Extra()
    found = {
        "launch_gap": split.gap if split else None, "more_eager": extra.eager, "more_gpu_work": extra.gpu,
        "more_launch_gap": extra.gap,
    }  # fmt: skip
    line: dict[str, object] = {"gpu_clock": split.gpu.clock if split and split.gap else None}
    for name, one in found.items():
        ends = (None,) * 3 if one is None else (one.value, one.low, one.high)
        line |= dict(zip((f"{name}_ms", f"{name}_low_ms", f"{name}_high_ms"), ends, strict=True))
    return line | {"launch_gap_percent": split.share.value if split and split.share else None}


def _paper_ms(paper: PaperRow | None, pass_: str) -> float | None:
    """The paper's time for a pass; its sum for forward-backward."""
    if paper is None:
        return None
    times = {"forward": paper.forward_ms, "backward": paper.backward_ms}
    return times.get(pass_, paper.total_ms if pass_ == "forward-backward" else None)


def write_tidy(lines: Sequence[dict[str, object]], path: Path) -> None:
    """Writes table1.csv. An empty cell means not measured."""
    import pandas as pd

    head = [*Case.__dataclass_fields__, "pass", "clock", "median_ms", "status"]
    frame = pd.DataFrame(list(lines)) if lines else pd.DataFrame(columns=head)
    for name in ("n", "processes", "launches"):
        if name in frame:
            frame[name] = frame[name].astype("Int64")  # pandas' integers that may be missing
    frame.to_csv(path, index=False, lineterminator="\n")
