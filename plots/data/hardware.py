"""How close times come to what the hardware allows: over the roofline time, and over rates measured here."""

from bench.case import Case
from bench.record.stats import Estimate
from bench.roofline.peaks import Peaks, peaks_of
from plots.data.breakdown import GPU_CLOCKS
from plots.data.load import Folder
from plots.data.results import Cell, Results, Work

UNITS = {"tflops": 1.0, "gflops": 1e-3, "tbs": 1.0, "gbs": 1e-3}  # of run.json's ceilings, in TFLOP/s and TB/s


def gpu_cell(results: Results, case: Case, pass_: str) -> Cell:
    """GPU time without launch cost: graph, or device where graph has no time."""
    cells = [results.get(case, pass_, clock) for clock in GPU_CLOCKS]
    return next((cell for cell in cells if cell.time), cells[0])


def over_roofline(cell: Cell, work: Work) -> Estimate | None:
    """How many times the roofline time a measured time is."""
    return None if cell.time is None or not work.floor_ms else cell.time.times(1 / work.floor_ms)


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
    """What run.json has as measured on this machine: TFLOP/s of one big matrix product by the dtype, and TB/s of one
    big copy under 'copy'."""
    found = {}
    for key, value in (folder.run.get("ceilings") or {}).items():
        name, _, unit = key.partition("_")
        if unit in UNITS and isinstance(value, float) and value > 0:
            found[name] = value * UNITS[unit]
    return found


def sheet_peaks(folder: Folder) -> Peaks | None:
    """The data sheet's peaks of the GPU; None of a CPU, and of a GPU that gpus.yaml does not know."""
    return None if folder.is_cpu else peaks_of(folder.device, folder.run.get("sm_count"))


def dtype_of(case: Case) -> str:
    """What the matrix products of a case are computed in."""
    return (case.precision or "").removeprefix("amp-")
