"""How close to what the hardware allows: time over the physical floor, achieved rates, and peak memory."""

from plots.data.breakdown import GPU_CLOCKS
from plots.data.case import Case
from plots.data.length_fit import Estimate
from plots.data.load import Folder, number
from plots.data.panels import Panel, Table, title
from plots.data.results import Book, Cell, Facts
from plots.text.captions import NOISY, OTHER_CLOCK, caption, listed, shape_word, with_interval

PASSES = ("forward", "backward", "forward-backward")


def gpu_cell(book: Book, case: Case, pass_: str) -> Cell:
    """GPU time without launch cost: graph, or device where graph has no time."""
    cells = [book.get(case, pass_, clock) for clock in GPU_CLOCKS]
    return next((cell for cell in cells if cell.time), cells[0])


def over_floor(cell: Cell, facts: Facts) -> Estimate | None:
    """How many times the physical floor a measured time is."""
    return None if cell.time is None or not facts.floor_ms else cell.time.times(1 / facts.floor_ms)


def tflops(cell: Cell, facts: Facts) -> Estimate | None:
    """Achieved TFLOP/s, from the closed form's operations."""
    if cell.time is None or not facts.flops or cell.time.value <= 0:
        return None
    return cell.time.inverse().times(facts.flops / 1e9)


def of_ceiling(folder: Folder, cell: Cell, facts: Facts) -> Estimate | None:
    """The achieved rate over that of one big matrix product on this machine, in percent."""
    found, rate = tflops(cell, facts), ceilings(folder).get(_gemm(cell.case))
    return None if found is None or rate is None else found.times(100 / rate)


def ceilings(folder: Folder) -> dict[str, float]:
    """The rates that run.json has as measured on this machine: bf16_tflops and the like, copy_tbs."""
    found = folder.run.get("ceilings")
    known = {k: number(v) for k, v in found.items()} if isinstance(found, dict) else {}
    return {str(k): v for k, v in known.items() if v and v > 0}


def _gemm(case: Case) -> str:
    return f"{(case.precision or '').removeprefix('amp-')}_tflops"


def efficiency_table(folder: Folder, book: Book, panel: Panel) -> Table | None:
    """GPU time over its floor, achieved TFLOP/s, and the part of the measured ceiling, for each pass."""
    facts = {(c, p): book.get_facts(c, p) for c in panel.cases for p in PASSES}
    passes = [p for p in PASSES if any(facts[c, p].floor_ms for c in panel.cases)]
    cells = {(c, p): gpu_cell(book, c, p) for c in panel.cases for p in passes}
    if not any(cell.time and facts[key].floor_ms for key, cell in cells.items()):
        return None
    rates = {key: rate for key, rate in ceilings(folder).items() if key in {_gemm(c) for c in panel.cases}}
    counted = any(f.flops for f in facts.values())
    subs = ("x floor", *(["TFLOP/s"] if counted else []), *(["of ceiling"] if rates and counted else []))
    lines = []
    for case in panel.in_order:
        groups = []
        for pass_ in passes:
            cell, known = cells[case, pass_], facts[case, pass_]
            found = [over_floor(cell, known), tflops(cell, known), of_ceiling(folder, cell, known)][: len(subs)]
            words = [_word(cell, one, " %" if i == 2 else "") for i, one in enumerate(found)]
            groups.append(tuple(words))
        lines.append((panel.where(case), tuple(groups)))
    notes = [
        "Time is clock graph, without launch cost; the floor is the least time that the board's published rates allow "
        "for the operations of the pass, and at cold L2 for the bytes that must move: 1 is the limit. TFLOP/s counts "
        "the method's own operations, by closed form."
    ]
    if rates and counted:
        found_rates = [f"{rate:.4g} TFLOP/s" for rate in rates.values()]
        notes.append(f"The ceiling is one big matrix product, measured on this machine: {listed(found_rates)}.")
    if any(cell.time and cell.clock != GPU_CLOCKS[0] for cell in cells.values()):
        notes.append(f"{OTHER_CLOCK} clock device, where graph has no time.")
    clocks = [c for c in GPU_CLOCKS if any(cell.time and cell.clock == c for cell in cells.values())]
    return Table(
        title(folder, "How close to what the hardware allows", panel, clocks=False),
        " ".join([*notes, caption(folder, book, panel.cases, *clocks)]),
        panel.lead,
        tuple((pass_.capitalize(), subs) for pass_ in passes),
        tuple(lines),
    )


def _word(cell: Cell, found: Estimate | None, unit: str) -> str:
    if cell.time is None:
        return cell.status
    if found is None:
        return "not known"
    marks = (f" {OTHER_CLOCK}" if cell.clock != GPU_CLOCKS[0] else "") + (f" {NOISY}" if cell.noisy else "")
    return with_interval(found, 1 if unit else 3) + unit + marks


def memory_table(folder: Folder, book: Book, panel: Panel) -> Table | None:
    """Peak memory in MiB, a column for each training type, with the part of Full-FT's that it is."""
    if not any(case in book.peaks_mib for case in panel.cases):
        return None
    full = {panel.labels[c] for c in panel.cases if book.baseline(c) == c}
    lead = 1 if len(panel.shapes) == 1 else 2
    lines = []
    for subject in panel.subjects:
        for shape in panel.shapes:
            cases = [panel.find(subject, shape, type_) for type_ in panel.types]
            groups = [_memory(book, c, t in full) for c, t in zip(cases, panel.types, strict=True)]
            if any(cases):
                lines.append(((subject, shape_word(shape))[:lead], tuple(groups)))
    return Table(
        title(folder, "Peak memory", panel, clocks=False),
        "The most that was allocated at one time during a separate, untimed call, weights and gradients included, in "
        f"MiB; beside it the part of Full-FT's at equal axes. {caption(folder, book, panel.cases)}",
        (panel.lead[0], "Batch x length")[:lead],
        tuple((type_, ("MiB",) if type_ in full else ("MiB", "of Full-FT")) for type_ in panel.types),
        tuple(lines),
    )


def _memory(book: Book, case: Case | None, is_full: bool) -> tuple[str, ...]:
    """(MiB, part of Full-FT's), of Full-FT itself the MiB alone."""
    mib = book.peaks_mib.get(case) if case else None
    if case is None or mib is None:
        word = book.failures[case].status if case in book.failures else "not measured"
        return (word,) if is_full else (word, word)
    words, base = f"{mib:.0f}" if mib >= 100 else f"{mib:.3g}", book.baseline(case)
    if is_full:
        return (words,)
    theirs = book.peaks_mib.get(base) if base else None
    return words, f"{mib / theirs:.2f}" if theirs else "no Full-FT"
