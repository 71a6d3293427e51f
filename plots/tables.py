"""Tables: Table 1 as the paper lays it out, the paper's beside ours, the layers, the fits."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from plots.cells import METHODS, PASSES, Book, Case
from plots.load import Folder
from plots.paper import paper_row
from plots.stats import Estimate, Line, straight_line
from plots.words import caption, labels, place, ratio_word, shape_word, time_word, with_interval

BESIDE = "Beside the paper"
MAX_WIDE = 3  # shapes that stand side by side, as in the paper; with more of them each gets a line of its own
TABLE_PASSES = (
    ("forward", "Forward (ms)"),
    ("backward", "Backward (ms)"),
    ("forward-backward", "Forward-backward (ms)"),
)


@dataclass(frozen=True)
class Table:
    """A table with grouped columns: each group has the same number of cells in every line."""

    title: str
    caption: str
    lead: tuple[str, ...]
    groups: tuple[tuple[str, tuple[str, ...]], ...]  # name, sub-columns
    lines: tuple[tuple[tuple[str, ...], tuple[tuple[str, ...], ...]], ...]  # lead cells, groups of cells


@dataclass(frozen=True)
class Panel:
    """Cases that one table may hold: one level, precision and L2 state, under one clock."""

    level: str
    precision: str | None
    l2: str | None
    clock: str
    cases: tuple[Case, ...]
    labels: dict[Case, str]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        return sorted({c.shape for c in self.cases}, key=lambda s: (s[0] * s[1], s))

    @property
    def subjects(self) -> list[str]:
        return list(dict.fromkeys(c.subject for c in self.cases))

    @property
    def types(self) -> list[str]:
        """Training types, Full-FT first."""
        order = list(METHODS)
        by_method = sorted(self.cases, key=lambda c: order.index(c.method) if c.method in order else len(order))
        return list(dict.fromkeys(self.labels[c] for c in by_method))

    def find(self, subject: str, shape: tuple[int, int], type_: str) -> Case | None:
        return self._index.get((subject, shape, type_))

    @cached_property
    def _index(self) -> dict[tuple[str, tuple[int, int], str], Case]:
        return {(c.subject, c.shape, self.labels[c]): c for c in self.cases}


def panels(book: Book) -> list[Panel]:
    """The cases of a folder, parted into what may stand in one table. The headline clock's come first."""
    found = []
    for clock in book.clocks or ["none"]:
        groups: dict[tuple[str, str | None, str | None], list[Case]] = {}
        for case in book.cases:
            if case in book.failures or any((case, p, clock) in book.cells for p in PASSES):
                groups.setdefault((case.level, case.precision, case.l2), []).append(case)
        for (level, precision, l2), cases in groups.items():
            found.append(Panel(level, precision, l2, clock, tuple(cases), labels(cases)))
    return found


def title(folder: Folder, what: str, panel: Panel) -> str:
    """'Forward and backward time: whole models on NVIDIA H100, bf16, clock eager'."""
    precision = f", {panel.precision}" if panel.precision else ""
    return f"{what}: {place(folder, panel.level)}{precision}, clock {panel.clock}"


def table1(folder: Folder, book: Book, panel: Panel) -> Table:
    """Model | training type | forward | backward | both | ratio to Full-FT, a column for each batch x length."""
    wide = len(panel.shapes) <= MAX_WIDE
    shape_sets = [panel.shapes] if wide else [[shape] for shape in panel.shapes]
    refresh = any(c.refresh_ms is not None for k, c in book.cells.items() if k[2] == panel.clock)
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
                groups.append(tuple(_ratio(book, c, panel.clock) for c in cases))
                if refresh:
                    groups.append((_refresh(book, cases, panel.clock),))
                where = (subject,) if wide else (subject, shape_word(shapes[0]))
                lines.append(((*where, type_), tuple(groups)))
    subs = tuple(map(shape_word, panel.shapes)) if wide else ("",)
    names = [name for _, name in TABLE_PASSES] + ["Ratio to Full-FT"]
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
    in_order = [panel.find(m, s, t) for m in panel.subjects for s in panel.shapes for t in panel.types]
    for case in [c for c in in_order if c is not None]:
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


def fits(book: Book, panel: Panel) -> dict[tuple[str, int, str, str], Line]:
    """(subject, batch, training type, pass) -> fixed + slope x tokens, where at least three lengths were measured."""
    found: dict[tuple[str, int, str, str], Line] = {}
    series: dict[tuple[str, int, str], list[Case]] = {}
    for case in panel.cases:
        series.setdefault((case.subject, case.batch, panel.labels[case]), []).append(case)
    for key, cases in series.items():
        for pass_ in ("forward", "backward"):
            points = [(c.tokens, book.get(c, pass_, panel.clock)) for c in sorted(cases, key=lambda c: c.seq)]
            good = [(tokens, cell.time.value) for tokens, cell in points if cell.time]
            if len(good) >= 3 and (line := straight_line(*zip(*good, strict=True))):
                found[(*key, pass_)] = line
    return found


def fits_table(folder: Folder, book: Book, panel: Panel) -> Table | None:
    """Fixed cost and slope of each model, batch, training type and pass."""
    lines: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
    found = fits(book, panel)
    for (subject, batch, type_, pass_), line in found.items():
        slope = _scaled(line.slope_ms, 1e3)
        cells = (with_interval(line.fixed_ms), with_interval(slope), f"{100 * line.worst:.1f} %")
        lines.setdefault((subject, str(batch), type_, pass_), []).append(cells)
    if not found:
        return None
    points = sorted({line.points for line in found.values()})
    return Table(
        title(folder, "Fixed cost and slope", panel),
        f"time = fixed + slope x tokens, tokens = batch x length, least squares of relative errors through "
        f"{points[0] if len(points) == 1 else f'{points[0]} to {points[-1]}'} lengths; intervals are Student's 95 % "
        "from the residuals. Fixed is what does not shrink with the input (launches, host); a straight line leaves out "
        "that attention grows with the square of the length, so a large residual means that fixed is not to be trusted."
        f" {caption(folder, book, panel.cases, panel.clock)}",
        ("Model", "Batch", "Training type", "Pass"),
        (("Fixed (ms)", ("",)), ("Slope (us a token)", ("",)), ("Largest residual", ("",))),
        tuple((lead, tuple((cell,) for cell in cells[0])) for lead, cells in lines.items()),
    )


def _scaled(found: Estimate, by: float) -> Estimate:
    low, high = (None if v is None else v * by for v in (found.low, found.high))
    return Estimate(found.value * by, low, high)
