"""The numbers of the tables as tidy data, unrounded."""

from collections.abc import Sequence

from bench.case import AXES, Case
from bench.record.stats import Estimate
from plots.data.breakdown import GPU_CLOCKS, has_both
from plots.data.hardware import dtype_of, measured_floor_ms, measured_peaks, over, percent_of_peak, tflops
from plots.data.load import text
from plots.data.panels import Panel
from plots.data.paper import paper_row
from plots.data.results import MICRO_PASSES, Cell
from plots.data.throughput import TRAINS, throughput

INTEGERS = ("n", "processes", "launches", "trained")  # columns of numbers that may be missing
HEAD = (*AXES, "pass", "clock", "median_ms", "status")  # where there is no line

Row = dict[str, object]


def ends(found: Estimate | None, *names: str) -> Row:
    """Value, low and high under three names; None where there is no estimate."""
    values = (None,) * 3 if found is None else (found.value, found.low, found.high)
    return dict(zip(names, values, strict=True))


def axes_columns(case: Case) -> Row:
    return {name: text(getattr(case, name)) for name in AXES}


def cell_columns(cell: Cell) -> Row:
    """The time of a cell, how it was measured and how it ended."""
    return ends(cell.time, "median_ms", "ci_low_ms", "ci_high_ms") | {
        "n": cell.n or None, "processes": cell.measured.processes if cell.measured else None,
        "noisy": cell.noisy if cell.time else None, "status": cell.status, "detail": cell.detail or None,
    }  # fmt: skip


def summary_rows(panels: Sequence[Panel]) -> list[Row]:
    """One line per case x pass x clock, numbers unrounded, with the ratio to Full-FT and the paper's own time.

    What only a GPU tells has columns where there is any.
    """
    lines: list[Row] = []
    more: list[Row] = []
    for panel in panels:
        for case in panel.cases:
            recorded = [p for p in ("step",) if (case, p, panel.clock) in panel.results.cells]
            for pass_ in (*MICRO_PASSES, *recorded):
                lines.append(_times(panel, case, pass_))
                more.append(
                    _hardware(panel, case, pass_) | _budget(panel, case, pass_) | _breakdown(panel, case, pass_)
                )
    filled = {name for line in more for name, value in line.items() if value is not None}
    return [line | {k: v for k, v in extra.items() if k in filled} for line, extra in zip(lines, more, strict=True)]


def _times(panel: Panel, case: Case, pass_: str) -> Row:
    folder, cell, ratio = panel.results.folder, panel.time(case, pass_), panel.ratio(case, pass_)
    paper = paper_row(case, panel.clock)
    gpu = folder.run.get("gpu") or text(next((r.get("gpu") for r in folder.rows if r.get("gpu")), None))
    return {
        "gpu": gpu, **axes_columns(case), "pass": pass_,
        "clock": panel.clock, **cell_columns(cell), "source": cell.source if cell.time else None,
        **ends(ratio.value, "ratio_to_full", "ratio_ci_low", "ratio_ci_high"), "ratio_scope": ratio.scope or None,
        "refresh_ms": cell.refresh_ms, "paper_ms": paper.ms(pass_) if paper else None,
        "paper_ratio_to_full": paper.ratio if paper and "-" in pass_ else None,
        "paper_gpu": paper.gpu if paper else None,
    }  # fmt: skip


def _hardware(panel: Panel, case: Case, pass_: str) -> Row:
    """What the work is, and on the GPU clocks how close it comes to what the hardware allows."""
    results, cell, work = panel.results, panel.time(case, pass_), panel.results.get_work(case, pass_)
    seen = panel.clock in GPU_CLOCKS or (results.folder.is_cpu and panel is panel.by_wall)
    peak = measured_peaks(results.folder).get(dtype_of(case))
    measured = measured_floor_ms(results, case, pass_)
    found = (over(cell, work.floor_ms), over(cell, measured), tflops(cell, work), percent_of_peak(cell, work, peak))
    names = ("times_floor", "times_measured", "tflops", "of_ceiling_percent")
    return {
        "launches": None if work.launches is None else round(work.launches), "flops": work.flops,
        "floor_ms": work.floor_ms, "peak_mib": results.peaks_mib.get(case),
        **{name: one.value if seen and one else None for name, one in zip(names, found, strict=True)},
    }  # fmt: skip


def _budget(panel: Panel, case: Case, pass_: str) -> Row:
    """What a person budgets with; of what trains, which a forward or a backward alone does not."""
    tells = pass_ in TRAINS and panel.clock != "host" and panel is panel.by_wall
    found = throughput(panel, case, pass_) if tells else None
    if found is None:
        return {}
    values = {
        "tokens_per_s": found.tokens_s, "mfu": found.mfu and found.mfu.times(0.01),
        "hours_per_epoch": found.epoch_h, "price_per_epoch": found.epoch_cost, "cost_per_million_tokens": found.cost,
    }  # fmt: skip
    told: Row = {name: value.value if value else None for name, value in values.items()}
    return told | {"energy_kj_per_million_tokens": found.energy_kj}


def _breakdown(panel: Panel, case: Case, pass_: str) -> Row:
    """Launch gap and difference to Full-FT, on the lines of clock eager."""
    if panel.clock != "eager" or not has_both(panel.results, case):
        return {}
    found = panel.breakdown(case, pass_)
    line: Row = {"gpu_clock": found.gpu.clock if found.gap else None}
    parts = (
        ("launch_gap", found.gap), ("more_eager", found.beyond.eager), ("more_gpu_work", found.beyond.gpu),
        ("more_launch_gap", found.beyond.gap),
    )  # fmt: skip
    for name, part in parts:
        line |= ends(part, f"{name}_ms", f"{name}_low_ms", f"{name}_high_ms")
    return line | {"launch_gap_percent": found.share.value if found.share else None}
