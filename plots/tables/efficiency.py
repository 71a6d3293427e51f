"""How close to what the hardware allows: time over the roofline time and over what measured rates allow, achieved
rates, and peak memory."""

from collections.abc import Iterable

from bench.case import Case
from bench.errors import listed
from bench.record.numbers import with_interval
from bench.record.stats import Estimate
from plots.data.breakdown import GPU_CLOCKS
from plots.data.hardware import dtype_of, measured_floor_ms, measured_peaks, over, tflops, work_cell
from plots.data.panels import Panel
from plots.data.results import MICRO_PASSES, Cell
from plots.render.blocks import Table
from plots.text.captions import caption, title
from plots.text.numbers import OTHER_CLOCK, marked, rate_word

NO_LIMIT = (
    "The distance to the limit is not known. It takes forward and backward times; a roofline time (a GPU of gpus.yaml) "
    "or peak rates measured in the same precision at the start of the run, which on a CPU is fp32 alone; and on a GPU "
    "clock graph or device."
)


def efficiency_table(panel: Panel) -> Table | None:
    """Time over the roofline time and over the least that measured rates allow, and the achieved rate, by pass; on a
    GPU of the time without launch cost."""
    panel = panel.by_wall
    results, on_cpu = panel.results, panel.results.folder.is_cpu
    keys = [(c, p) for c in panel.cases for p in MICRO_PASSES]
    sheet = {key: results.get_work(*key).floor_ms for key in keys}
    measured = {key: measured_floor_ms(results, *key) for key in keys}
    cells = {key: work_cell(panel, *key) for key in keys}
    if not any(cells[key].time and (sheet[key] or measured[key]) for key in keys):
        return None
    passes = [p for p in MICRO_PASSES if any(sheet[c, p] or measured[c, p] for c in panel.cases)]
    unit, by = ("GFLOP/s", 1e3) if on_cpu else ("TFLOP/s", 1.0)
    counted = any(results.get_work(*key).flops for key in keys)
    shown = {"x roofline": any(sheet.values()), "x measured": any(measured.values()), unit: counted}
    lines = []
    for case in panel.in_order:
        words: list[str] = []
        for pass_ in passes:
            cell = cells[case, pass_]
            rate = tflops(cell, results.get_work(case, pass_))
            found = over(cell, sheet[case, pass_]), over(cell, measured[case, pass_]), rate.times(by) if rate else None
            words += [_word(cell, one, on_cpu) for one, there in zip(found, shown.values(), strict=True) if there]
        lines.append((*panel.where(case), *words))
    clocks = [panel.clock] if on_cpu else [c for c in GPU_CLOCKS if any(x.clock == c for x in cells.values() if x.time)]
    subs = tuple(name for name, there in shown.items() if there)
    return Table(
        title("How close to what the hardware allows", panel, clocks=False),
        " ".join([*_notes(panel, shown, clocks), caption(panel, *clocks)]),
        panel.lead,
        tuple((pass_.capitalize(), subs) for pass_ in passes),
        tuple(lines),
    )


def _notes(panel: Panel, shown: dict[str, bool], clocks: list[str]) -> Iterable[str]:
    folder = panel.results.folder
    if not folder.is_cpu:
        yield "Time is clock graph, without launch cost."
    if shown["x roofline"]:
        yield (
            "The roofline time is the least that the device's published rates allow for the operations of the pass, "
            "and at cold L2 for the bytes that must move: 1 is the limit."
        )
    if shown["x measured"]:
        peaks, named = measured_peaks(folder), {dtype_of(c) for c in panel.cases}
        rates = [rate_word(rate, "FLOP/s") for name, rate in peaks.items() if name in named]
        copy = f", and of one big copy, {rate_word(peaks['copy'], 'B/s')}" if "copy" in peaks else ""
        yield (
            "x measured is the same over the least by rates that were measured on this machine: "
            f"{listed(rates)} of one big matrix product{copy}. Below 1 a cache still held bytes, or the machine was "
            "busier while the rates were measured."
        )
    if any(unit.endswith("FLOP/s") and there for unit, there in shown.items()):
        yield "FLOP/s are of the method's own operations, by closed form."
    if clocks != [GPU_CLOCKS[0]] and not folder.is_cpu:
        yield f"{OTHER_CLOCK} clock device, where graph has no time."


def _word(cell: Cell, found: Estimate | None, on_cpu: bool) -> str:
    if cell.time is None:
        return cell.status
    if found is None:
        return "not known"
    return marked(with_interval(found, 3), cell.noisy, not on_cpu and cell.clock != GPU_CLOCKS[0])


def memory_table(panel: Panel) -> Table | None:
    """Peak memory in MiB, and the part of Full-FT's that it is."""
    if not any(case in panel.results.peaks_mib for case in panel.cases):
        return None
    return Table(
        title("Peak memory", panel, clocks=False),
        "The most that was allocated at one time during a separate, untimed call, weights and gradients included; "
        f"beside it the part of Full-FT's at equal axes. {caption(panel)}",
        panel.lead,
        (("Peak (MiB)", ()), ("Part of Full-FT's", ())),
        tuple((*panel.where(case), *_memory(panel, case)) for case in panel.in_order),
    )


def _memory(panel: Panel, case: Case) -> tuple[str, str]:
    """(MiB, part of Full-FT's)."""
    peaks, base = panel.results.peaks_mib, panel.results.baseline(case)
    mib, theirs = peaks.get(case), peaks.get(base) if base else None
    if mib is None:
        failed = panel.results.failures.get(case)
        return (failed.status if failed else "not measured",) * 2
    part = "no Full-FT" if not theirs else "1" if base == case else f"{mib / theirs:.2f}"
    return f"{mib:.0f}" if mib >= 100 else f"{mib:.3g}", part
