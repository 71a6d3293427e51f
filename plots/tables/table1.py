"""Table 1: forward, backward, both, the ratio to Full-FT, tokens a second and memory; the paper's beside ours; the
whole step."""

from bench.case import Case
from bench.case.schema import BASELINE
from bench.record.stats import Estimate
from plots.data.labels import shape_word
from plots.data.panels import Panel
from plots.data.paper import paper_row
from plots.data.results import MICRO_PASSES, Cell
from plots.data.throughput import throughput
from plots.render.blocks import Table
from plots.tables.throughput import PEAK, peak_word
from plots.text.captions import caption, ratio_note, title
from plots.text.numbers import difference_word, marked, ratio_word, short, time_word

BESIDE = "Beside the paper"
HOW = {"measured": "as measured in one go", "forward + backward": "forward + backward added up"}


def times_table(panel: Panel) -> Table:
    """A line for each model, batch x length and training type."""
    refreshed = any(c.refresh_ms is not None for k, c in panel.results.cells.items() if k[2] == panel.clock)
    rated = bool(panel.baselines)
    rates = {case: _rate(panel, case) for case in panel.in_order}
    fast, heavy = any(rates.values()), any(case in panel.results.peaks_mib for case in rates)
    lines = []
    sums: set[str] = set()
    for case in panel.in_order:
        cells = [panel.time(case, pass_) for pass_ in MICRO_PASSES]
        words = [time_word(cell) for cell in cells]
        words += [ratio_word(panel.ratio(case))] * rated + [rates[case] or cells[-1].status] * fast
        words += [peak_word(panel, case) if cells[-1].time else cells[-1].status] * heavy
        words += [_refresh(cells)] * refreshed
        sums |= {cells[-1].source} if cells[-1].time else set()
        lines.append((*panel.where(case), *words))
    heads = [f"{pass_.capitalize()} (ms)" for pass_ in MICRO_PASSES]
    heads += ["Ratio to Full-FT"] * rated + ["Tokens a second"] * fast + [PEAK] * heavy
    heads += ["Refresh (ms)"] * refreshed
    notes = [caption(panel)]
    if sums:
        notes.append(f"Forward-backward is {', or '.join(HOW[s] for s in sorted(sums, reverse=True))}.")
    notes.append(ratio_note(panel))
    if fast:
        block = ", of one block alone" if panel.level == "block" else ""
        notes.append(f"Tokens a second are batch x length over forward-backward{block}.")
    if refreshed:
        notes.append("PaCA's column refresh is due once per optimizer step and lies outside all passes.")
    return Table(
        title("Forward and backward time", panel), " ".join(notes), panel.lead, tuple((head, ()) for head in heads),
        tuple(lines),
    )  # fmt: skip


def _rate(panel: Panel, case: Case) -> str:
    """Tokens a second of forward-backward; nothing under a clock whose time is none that passes."""
    tells = panel.clock != "host" and panel is panel.by_wall
    found = throughput(panel, case, "forward-backward") if tells else None
    return short(found.tokens_s.value) if found else ""


def _refresh(cells: list[Cell]) -> str:
    known = [cell.refresh_ms for cell in cells if cell.refresh_ms is not None]
    if known:
        return f"{known[-1]:.3g}"
    timed = any(cell.time for cell in cells)
    return "none" if timed or cells[0].case.method != "paca" else cells[0].status


def paper_table(panel: Panel) -> Table | None:
    """Ours beside the paper's, only for cases that the paper has: same model, method, batch and length."""
    lines = []
    for case in panel.in_order:
        paper = paper_row(case, panel.clock)
        if paper is None:
            continue
        theirs = "1" if case.method == BASELINE else f"{paper.ratio:.2f}" if paper.ratio else "not given"
        lines.append((
            case.subject, shape_word(case.size), panel.labels[case],
            time_word(panel.time(case, "forward")), f"{paper.forward_ms:.2f}",
            time_word(panel.time(case, "backward")), f"{paper.backward_ms:.2f}", ratio_word(panel.ratio(case)), theirs,
        ))  # fmt: skip
    if not lines:
        return None
    return Table(
        BESIDE,
        f"{caption(panel)} The paper's numbers come from an A100; its rank, targets, dropout and precision for this "
        "table are not stated, so its milliseconds are no target. Its ratio is forward + backward over Full-FT's.",
        ("Model", "Batch x length", "Training type"),
        tuple((name, ("here", "paper")) for name in ("Forward (ms)", "Backward (ms)", "Ratio to Full-FT")),
        tuple(lines),
    )


def step_table(panel: Panel) -> Table | None:
    """Forward-backward beside the whole step: what the optimizer and PaCA's refresh add, and both ratios to Full-FT.

    Not of steps whose gradients accumulate: table2.md has them by their parts.
    """
    cases = [case for case in panel.in_order if case.micro_steps == 1]
    recorded = [case for case in cases if (case, "step", panel.clock) in panel.results.cells]
    if not recorded:
        return None
    lines = [_step_line(panel, case) for case in cases if case in recorded or case in panel.results.failures]
    return Table(
        title("Forward-backward and the whole step", panel),
        "A step is forward, backward, the optimizer, and PaCA's column refresh; Full-FT's optimizer goes over all "
        f"weights, the others' over few. {caption(panel)} {ratio_note(panel)}",
        panel.lead,
        (
            ("Forward-backward (ms)", ()), ("Step (ms)", ()), ("Added by the step (ms)", ()),
            ("Ratio to Full-FT", ("forward-backward", "step")),
        ),
        tuple(lines),
    )  # fmt: skip


def _step_line(panel: Panel, case: Case) -> tuple[str, ...]:
    both, step = (panel.time(case, pass_) for pass_ in ("forward-backward", "step"))
    added = added_by_step(both, step)
    word = both.status if both.time is None else step.status
    return (
        *panel.where(case), time_word(both), time_word(step),
        marked(difference_word(added), both.noisy or step.noisy) if added else word,
        *(ratio_word(panel.ratio(case, pass_)) for pass_ in ("forward-backward", "step")),
    )  # fmt: skip


def added_by_step(both: Cell, step: Cell) -> Estimate | None:
    """Step less forward-backward."""
    if both.measured is None or step.measured is None:
        return None
    return (step.measured - both.measured).estimate
