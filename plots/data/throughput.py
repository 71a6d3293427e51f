"""What a person budgets with: tokens a second, model FLOPs utilization, cost and energy of a million tokens, hours and
price of an epoch."""

from dataclasses import dataclass

from bench.case import Case
from bench.record import budget
from bench.record.budget import TRAINS
from bench.record.stats import Estimate
from plots.data.load import Folder
from plots.data.panels import Panel
from plots.data.training_runs import steps_of


@dataclass(frozen=True)
class Throughput:
    """Of one case. None where it is not known."""

    tokens_s: Estimate
    mfu: Estimate | None  # percent
    cost: Estimate | None  # of a million tokens, in the currency of the price
    energy_kj: float | None  # of a million tokens
    epoch_h: Estimate | None  # of whole models alone: a block has no epoch
    epoch_cost: Estimate | None


def trained_pass(panel: Panel) -> str:
    """The whole step where every case that has a micro-step's time has one, else the micro-step."""
    either = [c for c in panel.cases if any(panel.time(c, pass_).time for pass_ in TRAINS)]
    return "step" if either and all(panel.time(c, "step").time for c in either) else "forward-backward"


def throughput(panel: Panel, case: Case, pass_: str) -> Throughput | None:
    """None without a time."""
    cell = panel.time(case, pass_)
    results, tokens = panel.results, budget.tokens_of(case, pass_)
    if cell.time is None or cell.time.value <= 0 or not tokens:
        return None
    peak, flops = peak_tflops(results.folder, case), results.get_work(case, pass_).flops
    mfu = budget.utilization(cell.time, flops, peak[0]).times(100) if flops and peak else None
    cost = budget.cost_of_million(cell.time, tokens, results.price) if results.price else None
    energy = None if cell.energy_j is None else cell.energy_j / 1e3 * 1e6 / tokens
    steps = steps_of(results.examples, case.batch, case.micro_steps if pass_ == "step" else 1)
    epoch = cell.time.times(steps / 3.6e6) if case.level == "model" else None
    epoch_cost = epoch.times(results.price) if epoch and results.price else None
    return Throughput(budget.tokens_per_s(cell.time, tokens), mfu, cost, energy, epoch, epoch_cost)


def peak_tflops(folder: Folder, case: Case) -> tuple[float, str] | None:
    """The peak that utilization is over, and where it comes from: the data sheet, or what was measured here."""
    return budget.peak_tflops(folder.run, None if folder.is_cpu else folder.device, case.precision)
