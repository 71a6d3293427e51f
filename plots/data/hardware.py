"""How close times come to what the hardware allows: over the roofline time, and over what rates measured here allow."""

from bench.case import Case
from bench.record import budget
from bench.record.stats import Estimate
from bench.roofline.peaks import PEAK_OF, peaks_of
from plots.data.breakdown import GPU_CLOCKS
from plots.data.load import Folder
from plots.data.panels import Panel
from plots.data.results import Cell, Results, Work


def work_cell(panel: Panel, case: Case, pass_: str) -> Cell:
    """The time of the work itself: without launch cost on a GPU, the panel's own on a CPU."""
    return panel.time(case, pass_) if panel.results.folder.is_cpu else gpu_cell(panel.results, case, pass_)


def gpu_cell(results: Results, case: Case, pass_: str) -> Cell:
    """GPU time without launch cost: graph, or device where graph has no time."""
    cells = [results.get(case, pass_, clock) for clock in GPU_CLOCKS]
    return next((cell for cell in cells if cell.time), cells[0])


def over(cell: Cell, floor_ms: float | None) -> Estimate | None:
    """How many times the least time a measured time is."""
    return None if cell.time is None or not floor_ms else cell.time.times(1 / floor_ms)


def measured_floor_ms(results: Results, case: Case, pass_: str) -> float | None:
    """The least that the rates measured on this machine allow, by the rule of the roofline time: FLOPs over that of one
    big matrix product, or bytes over that of one big copy where they take longer; at warm L2 FLOPs alone."""
    if pass_ == "forward-backward":
        both = [measured_floor_ms(results, case, part) for part in ("forward", "backward")]
        if (forward := both[0]) is not None and (backward := both[1]) is not None:
            return forward + backward
    work, peaks = results.get_work(case, pass_), measured_peaks(results.folder)
    rate, copy = peaks.get(dtype_of(case)), peaks.get("copy")
    if rate is None or not work.flops:
        return None
    memory = work.bytes / copy if copy and work.bytes and case.l2 != "warm" else 0.0
    return max(work.flops / rate, memory) / 1e9


def tflops(cell: Cell, work: Work) -> Estimate | None:
    """Achieved TFLOP/s, from the closed form's operations."""
    if cell.time is None or not work.flops or cell.time.value <= 0:
        return None
    return cell.time.inverse().times(work.flops / 1e9)


def percent_of_peak(cell: Cell, work: Work, peak_tflops: float | None) -> Estimate | None:
    """The achieved rate over a peak rate, in percent."""
    found = tflops(cell, work)
    return None if found is None or peak_tflops is None else found.times(100 / peak_tflops)


def measured_peaks(folder: Folder) -> dict[str, float]:
    """What run.json has as measured on this machine: see bench.record.budget."""
    return budget.measured_peaks(folder.run)


def sheet_peaks(folder: Folder, case: Case) -> tuple[float, float] | None:
    """TFLOP/s at a case's precision and TB/s by the data sheet; None of a CPU, and of a GPU that gpus.yaml does not
    know."""
    peaks = None if folder.is_cpu else peaks_of(folder.device, folder.run.get("sm_count"))
    return (peaks.tflops(case.precision), peaks.memory_tbs) if peaks and case.precision in PEAK_OF else None


def dtype_of(case: Case) -> str:
    """What the matrix products of a case are computed in."""
    return budget.dtype_of(case.precision)
