"""Throughput, model FLOPs utilization, peak memory, epochs, cost and energy of training, a line for each case."""

from bench.case import Case
from bench.errors import listed
from bench.record.numbers import with_interval
from plots.data.hardware import dtype_of
from plots.data.panels import Panel
from plots.data.results import Cell
from plots.data.throughput import Throughput, peak_tflops, throughput, trained_pass
from plots.render.blocks import Table
from plots.text.captions import caption, title
from plots.text.numbers import marked, rate_word

PEAK = "Peak memory (MiB)"
NO_THROUGHPUT = "Not told: it takes the time of a step, or of forward and backward, of a block or a whole model."


def throughput_table(panel: Panel) -> Table | None:
    """None of single layers, and where nothing was timed."""
    panel = panel.by_wall
    pass_ = trained_pass(panel)
    found = {c: throughput(panel, c, pass_) for c in panel.in_order}
    if panel.level == "linear" or not any(found.values()):
        return None
    counted = any(f and f.energy_kj is not None for f in found.values())
    whole, price = panel.level == "model", panel.results.price
    heads = ["Tokens a second", "MFU (%)", PEAK] + ["Hours an epoch"] * whole
    heads += ["Price of an epoch"] * bool(whole and price) + ["Cost of a million tokens"] * bool(price)
    heads += ["Energy of a million tokens (kJ)"] * counted
    return Table(
        title("Throughput", panel),
        f"{budget_note(panel, pass_)} {_energy_note(panel, counted)} {caption(panel)}",
        panel.lead,
        tuple((head, ()) for head in heads),
        tuple(
            (*panel.where(c), *_words(panel, panel.time(c, pass_), f, len(heads), counted)) for c, f in found.items()
        ),
    )


def _words(panel: Panel, cell: Cell, found: Throughput | None, columns: int, counted: bool) -> list[str]:
    if found is None:
        return [cell.status] * columns
    words = [marked(with_interval(found.tokens_s), cell.noisy)]
    words.append(marked(with_interval(found.mfu, 2), cell.noisy) if found.mfu else "not known")
    words.append(peak_word(panel, cell.case))
    words += [marked(with_interval(v), cell.noisy) for v in (found.epoch_h, found.epoch_cost, found.cost) if v]
    return words + ["not measured" if found.energy_kj is None else f"{found.energy_kj:.4g}"] * counted


def peak_word(panel: Panel, case: Case) -> str:
    """Its peak memory in MiB."""
    mib = panel.results.peaks_mib.get(case)
    return f"{mib:.0f}" if mib else "not measured"


def _energy_note(panel: Panel, counted: bool) -> str:
    if counted:
        return "Energy is by the GPU's own counter, over at least 2 s of calls back to back; the host's is not in it."
    why = (
        "that of a CPU is not read"
        if panel.results.folder.is_cpu
        else "no row has it; a sweep with measure: {energy: true} reads the GPU's counter"
    )
    return f"Energy is not told: {why}."


def budget_note(panel: Panel, pass_: str) -> str:
    """What the columns mean, and against which peak."""
    of = "whole optimizer step" if pass_ == "step" else "micro-step, forward and backward, without the optimizer"
    block = " Of one block alone: a model of many blocks is as many times slower." if panel.level == "block" else ""
    peaks = {dtype_of(c): peak for c in panel.cases if (peak := peak_tflops(panel.results.folder, c))}
    over = listed([f"{rate_word(rate, 'FLOP/s')}, {source} {dtype}" for dtype, (rate, source) in peaks.items()])
    mfu = (
        "MFU, model FLOPs utilization, is the method's own operations by closed form (matrix products, each once and "
        "none recomputed; without dW of weights that do not train; causal attention as half) over the time and over "
        f"{over}. PaLM's appendix B counts 6 operations a weight and token, and all of attention."
        if peaks
        else "MFU is not known without a peak rate: the device is not in gpus.yaml, and none was measured."
    )
    price = panel.results.price
    cost = f"Cost is at {price:.12g} an hour (--price)." if price else "With --price, of an hour, costs stand here."
    return f"Tokens over the time of a {of}.{block} {mfu} {_epoch_note(panel, pass_)} {cost}"


def _epoch_note(panel: Panel, pass_: str) -> str:
    """How long an epoch is."""
    if panel.level != "model":
        return "Hours of an epoch are told of whole models."
    step, size = ("optimizer steps", "batch x micro-steps") if pass_ == "step" else ("micro-steps", "batch")
    return (
        f"An epoch is {panel.results.examples:,} examples (--examples), each a sequence of the case's length: "
        f"ceil(examples / ({size})) {step}, without loading of data."
    )
