"""What a person budgets with: tokens a second, model FLOPs utilization, cost and energy of a million tokens."""

from dataclasses import dataclass

from bench.case import Case
from bench.record.stats import Estimate
from plots.data.hardware import dtype_of, measured_peaks, percent_of_peak, sheet_peaks
from plots.data.load import Folder
from plots.data.panels import Panel

TRAINS = ("step", "forward-backward")  # a whole optimizer step, or a micro-step


@dataclass(frozen=True)
class Throughput:
    """Of one case. None where it is not known."""

    tokens_s: Estimate
    mfu: Estimate | None  # percent
    cost: Estimate | None  # of a million tokens, in the currency of the price
    energy_kj: float | None  # of a million tokens


def trained_pass(panel: Panel) -> str:
    """The whole step where every case that has a micro-step's time has one, else the micro-step."""
    either = [c for c in panel.cases if any(panel.time(c, pass_).time for pass_ in TRAINS)]
    return "step" if either and all(panel.time(c, "step").time for c in either) else "forward-backward"


def throughput(panel: Panel, case: Case, pass_: str) -> Throughput | None:
    """None without a time."""
    cell = panel.time(case, pass_)
    if cell.time is None or cell.time.value <= 0:
        return None
    tokens = case.tokens * (case.micro_steps if pass_ == "step" else 1)
    results = panel.results
    peak = peak_tflops(results.folder, case)
    mfu = percent_of_peak(cell, results.get_work(case, pass_), peak[0] if peak else None)
    cost = cell.time.times(results.price / 3.6e6 * 1e6 / tokens) if results.price else None
    energy = None if cell.energy_j is None else cell.energy_j / 1e3 * 1e6 / tokens
    return Throughput(cell.time.inverse().times(1e3 * tokens), mfu, cost, energy)


def peak_tflops(folder: Folder, case: Case) -> tuple[float, str] | None:
    """The peak that utilization is over, and where it comes from: the data sheet, or what was measured here."""
    sheet, measured = sheet_peaks(folder, case), measured_peaks(folder).get(dtype_of(case))
    if sheet is not None:
        return sheet[0], "the data sheet's dense"
    return None if measured is None else (measured, "one big matrix product measured on this machine in")
