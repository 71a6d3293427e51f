"""How close times come to what the hardware allows: over the roofline time, and over rates measured here."""

from bench.case import Case
from bench.record.stats import Estimate
from plots.data.breakdown import GPU_CLOCKS
from plots.data.load import Folder
from plots.data.results import Cell, Results, Work


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


def percent_of_peak(folder: Folder, cell: Cell, work: Work) -> Estimate | None:
    """The achieved rate over that of one big matrix product on this machine, in percent."""
    found, rate = tflops(cell, work), measured_peaks(folder).get(peak_name(cell.case))
    return None if found is None or rate is None else found.times(100 / rate)


def measured_peaks(folder: Folder) -> dict[str, float]:
    """The rates that run.json has as measured on this machine: bf16_tflops and the like, copy_tbs."""
    found = folder.run.get("ceilings") or {}
    return {k: v for k, v in found.items() if isinstance(v, float) and v > 0}


def peak_name(case: Case) -> str:
    """The peak that bounds a case, by its key in run.json."""
    return f"{(case.precision or '').removeprefix('amp-')}_tflops"
