"""Tables: Table 1 as the paper lays it out, the paper's beside ours, the step, the layers."""

from collections.abc import Sequence

from plots.data.case import Case
from plots.data.length_fit import Estimate, interval
from plots.data.load import Folder
from plots.data.panels import MAX_WIDE, Panel, Table, title
from plots.data.paper import paper_row
from plots.data.results import Book, Cell
from plots.text.captions import NOISY, caption, difference_word, ratio_word, shape_word, time_word

BESIDE = "Beside the paper"
TABLE_PASSES = (
    ("forward", "Forward (ms)"),
    ("backward", "Backward (ms)"),
    ("forward-backward", "Forward-backward (ms)"),
)


def table1(folder: Folder, book: Book, panel: Panel) -> Table:
    """Model | training type | forward | backward | both | ratio to Full-FT, a column for each batch x length."""
    wide = len(panel.shapes) <= MAX_WIDE
    shape_sets = [panel.shapes] if wide else [[shape] for shape in panel.shapes]
    refresh = any(c.refresh_ms is not None for k, c in book.cells.items() if k[2] == panel.clock)
    rated = any(book.baseline(c) for c in panel.cases)
    lines = []
    sums: set[str] = set()
    for subject in panel.subjects:
        for shapes in shape_sets:
            for type_ in panel.types:
                cases = [panel.find(subject, shape, type_) for shape in shapes]
                if not any(cases):
                    continue
                groups = []
                for pass_, _ in TABLE_PASSES:
                    cells = [None if c is None else book.get(c, pass_, panel.clock) for c in cases]
                    groups.append(tuple("not measured" if c is None else time_word(c) for c in cells))
                    sums |= {c.source for c in cells if c is not None and c.time and pass_ == "forward-backward"}
                if rated:
                    groups.append(tuple(_ratio(book, c, panel.clock) for c in cases))
                if refresh:
                    groups.append((_refresh(book, cases, panel.clock),))
                where = (subject,) if wide else (subject, shape_word(shapes[0]))
                lines.append(((*where, type_), tuple(groups)))
    subs = tuple(map(shape_word, panel.shapes)) if wide else ("",)
    names = [name for _, name in TABLE_PASSES] + ["Ratio to Full-FT"] * rated
    how = {"measured": "as measured in one go", "forward + backward": "forward + backward added up"}
    after = [
        *([f"Forward-backward is {', or '.join(how[s] for s in sorted(sums, reverse=True))}."] if sums else []),
        ratio_note(book, panel),
        *(["PaCA's column refresh is due once per optimizer step and lies outside all passes."] if refresh else []),
    ]
    return Table(
        title(folder, "Forward and backward time", panel),
        " ".join([caption(folder, book, panel.cases, panel.clock), *after]),
        ("Model", "Training type") if wide else ("Model", "Batch x length", "Training type"),
        (*((name, subs) for name in names), *([("Refresh (ms)", ("",))] if refresh else [])),
        tuple(lines),
    )


def ratio_note(book: Book, panel: Panel) -> str:
    """What the ratio divides by, and what its interval speaks for."""
    ratios = [book.ratio(c, "forward-backward", panel.clock) for c in panel.cases if c.method != "full"]
    scopes = list(dict.fromkeys(r.scope for r in ratios if r.value is not None))
    noisy = any(c.noisy for k, c in book.cells.items() if k[2] == panel.clock)
    mark = " † marks rows that were noisy." if noisy else ""
    if not scopes:
        return f"No ratio to Full-FT could be formed.{mark}"
    base = list(dict.fromkeys(panel.labels[b] for b in map(book.baseline, panel.cases) if b in panel.labels))
    return (
        f"Ratios divide by {' or '.join(base)} at equal level, model, layers, precision, batch, length and clock; "
        f"their 95 % interval is {' or '.join(scopes)}.{mark}"
    )


def _ratio(book: Book, case: Case | None, clock: str) -> str:
    return "not measured" if case is None else ratio_word(book.ratio(case, "forward-backward", clock))


def _refresh(book: Book, cases: Sequence[Case | None], clock: str) -> str:
    """The refresh in ms at the largest of the cases that has one: it does not depend on batch or length."""
    cells = [book.get(case, pass_, clock) for case in cases if case for pass_, _ in TABLE_PASSES]
    known = [cell.refresh_ms for cell in cells if cell.refresh_ms is not None]
    if known:
        return f"{known[-1]:.3g}"
    timed = any(cell.time for cell in cells)
    return "none" if timed or not cells or cells[0].case.method != "paca" else cells[0].status


def paper_table(folder: Folder, book: Book, panel: Panel) -> Table | None:
    """Ours beside the paper's, only for cases that the paper has: same model, method, batch and length."""
    lines = []
    for case in panel.in_order:
        paper = paper_row(case, panel.clock)
        if paper is None:
            continue
        groups = [
            (time_word(book.get(case, p, panel.clock)), f"{ms:.2f}")
            for p, ms in (("forward", paper.forward_ms), ("backward", paper.backward_ms))
        ]
        theirs = "1" if case.method == "full" else f"{paper.ratio:.2f}" if paper.ratio else "not given"
        groups.append((_ratio(book, case, panel.clock), theirs))
        lines.append(((str(case.model), shape_word(case.shape), panel.labels[case]), tuple(groups)))
    if not lines:
        return None
    return Table(
        BESIDE,
        f"{caption(folder, book, panel.cases, panel.clock)} The paper's numbers come from an A100; its rank, targets, "
        "dropout and precision for this table are not stated, so its milliseconds are no target. Its ratio is forward "
        "+ backward over Full-FT's.",
        ("Model", "Batch x length", "Training type"),
        tuple((name, ("here", "paper")) for name in ("Forward (ms)", "Backward (ms)", "Ratio to Full-FT")),
        tuple(lines),
    )


def step_table(folder: Folder, book: Book, panel: Panel) -> Table | None:
    """Forward-backward beside the whole step: what the optimizer and PaCA's refresh add, and both ratios to Full-FT.

    Not of steps whose gradients accumulate: table2.md has them by their parts.
    """
    cases = [case for case in panel.in_order if case.micro_steps == 1]
    if not any((case, "step", panel.clock) in book.cells for case in cases):
        return None
    lines = []
    for case in cases:
        if case not in book.failures and (case, "step", panel.clock) not in book.cells:
            continue
        both, step = (book.get(case, pass_, panel.clock) for pass_ in ("forward-backward", "step"))
        added = added_by_step(both, step)
        marks = f" {NOISY}" if both.noisy or step.noisy else ""
        word = both.status if both.time is None else step.status
        ratios = (ratio_word(book.ratio(case, pass_, panel.clock)) for pass_ in ("forward-backward", "step"))
        groups = (
            (time_word(both),), (time_word(step),), (difference_word(added) + marks if added else word,), tuple(ratios),
        )  # fmt: skip
        lines.append((panel.where(case), groups))
    return Table(
        title(folder, "Forward-backward and the whole step", panel),
        "A step is forward, backward, the optimizer, and PaCA's column refresh; Full-FT's optimizer goes over all "
        f"weights, the others' over few. {caption(folder, book, panel.cases, panel.clock)} {ratio_note(book, panel)}",
        panel.lead,
        (
            ("Forward-backward (ms)", ("",)), ("Step (ms)", ("",)), ("Added by the step (ms)", ("",)),
            ("Ratio to Full-FT", ("forward-backward", "step")),
        ),
        tuple(lines),
    )  # fmt: skip


def added_by_step(both: Cell, step: Cell) -> Estimate | None:
    """Step less forward-backward."""
    if both.time is None or step.time is None:
        return None
    draws = None if both.draws is None or step.draws is None else step.draws - both.draws
    return interval(step.time.value - both.time.value, draws)


def layers_table(folder: Folder, book: Book, panel: Panel) -> Table:
    """One line a layer and shape: Full-FT in ms, the other training types as ratios to it."""
    passes = ("forward", "backward", "forward-backward")
    subs = ("forward", "backward", "forward-backward")
    lead = 1 if len(panel.shapes) == 1 else 2  # one batch x length stands in the caption
    lines = []
    for subject in panel.subjects:
        for shape in panel.shapes:
            groups: list[tuple[str, ...]] = []
            cases = [panel.find(subject, shape, type_) for type_ in panel.types]
            for case in cases:
                if case is None:
                    groups.append(("not measured",) * 3)
                elif case.method == "full":
                    groups.append(tuple(time_word(book.get(case, p, panel.clock)) for p in passes))
                else:
                    groups.append(tuple(ratio_word(book.ratio(case, p, panel.clock)) for p in passes))
            if any(cases):
                lines.append(((subject, shape_word(shape))[:lead], tuple(groups)))
    full = {panel.labels[c] for c in panel.cases if c.method == "full"}
    heads = [f"{t} (ms)" if t in full else f"{t} / Full-FT" for t in panel.types]
    return Table(
        title(folder, "Time by layer", panel),
        f"{caption(folder, book, panel.cases, panel.clock)} {ratio_note(book, panel)}",
        ("Layer", "Batch x length")[:lead],
        tuple((head, subs) for head in heads),
        tuple(lines),
    )
