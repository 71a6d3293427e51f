"""How close to what the hardware allows: time over the roofline time, achieved rates, and peak memory."""

from bench.case import Case
from bench.record.numbers import with_interval
from bench.record.stats import Estimate
from plots.data.breakdown import GPU_CLOCKS
from plots.data.hardware import dtype_of, gpu_cell, measured_peaks, over_roofline, percent_of_peak, tflops
from plots.data.labels import listed
from plots.data.panels import Panel
from plots.data.results import MICRO_PASSES, Cell
from plots.render.blocks import Table
from plots.text.captions import caption, title
from plots.text.numbers import OTHER_CLOCK, marked


def efficiency_table(panel: Panel) -> Table | None:
    """GPU time over its roofline time, achieved TFLOP/s, and the part of the measured peak, for each pass."""
    results = panel.results
    work = {(c, p): results.get_work(c, p) for c in panel.cases for p in MICRO_PASSES}
    passes = [p for p in MICRO_PASSES if any(work[c, p].floor_ms for c in panel.cases)]
    cells = {(c, p): gpu_cell(results, c, p) for c in panel.cases for p in passes}
    if not any(cell.time and work[key].floor_ms for key, cell in cells.items()):
        return None
    named = {dtype_of(c) for c in panel.cases}
    peaks = {key: rate for key, rate in measured_peaks(results.folder).items() if key in named}
    counted = any(w.flops for w in work.values())
    subs = ("x roofline", *(["TFLOP/s"] if counted else []), *(["% of peak"] if peaks and counted else []))
    lines = []
    for case in panel.in_order:
        words: list[str] = []
        for pass_ in passes:
            cell, known = cells[case, pass_], work[case, pass_]
            found = (
                over_roofline(cell, known),
                tflops(cell, known),
                percent_of_peak(cell, known, peaks.get(dtype_of(case))),
            )
            words += [_word(cell, one, places) for one, places in zip(found, (3, 3, 1), strict=True)][: len(subs)]
        lines.append((*panel.where(case), *words))
    notes = [
        "Time is clock graph, without launch cost; the roofline time is the least that the device's published rates "
        "allow for the operations of the pass, and at cold L2 for the bytes that must move: 1 is the limit. TFLOP/s "
        "counts the method's own operations, by closed form."
    ]
    if peaks and counted:
        rates = [f"{rate:.4g} TFLOP/s" for rate in peaks.values()]
        notes.append(f"The peak is one big matrix product, measured on this machine: {listed(rates)}.")
    clocks = [c for c in GPU_CLOCKS if any(cell.time and cell.clock == c for cell in cells.values())]
    if clocks != [GPU_CLOCKS[0]]:
        notes.append(f"{OTHER_CLOCK} clock device, where graph has no time.")
    return Table(
        title("How close to what the hardware allows", panel, clocks=False),
        " ".join([*notes, caption(panel, *clocks)]),
        panel.lead,
        tuple((pass_.capitalize(), subs) for pass_ in passes),
        tuple(lines),
    )


def _word(cell: Cell, found: Estimate | None, places: int) -> str:
    if cell.time is None:
        return cell.status
    if found is None:
        return "not known"
    return marked(with_interval(found, places), cell.noisy, cell.clock != GPU_CLOCKS[0])


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
