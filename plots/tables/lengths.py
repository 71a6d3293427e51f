"""Fixed cost and slope: straight lines through the times of at least three lengths."""

from plots.data.case import Case
from plots.data.length_fit import Line, straight_line
from plots.data.load import Folder
from plots.data.panels import Panel, Table, title
from plots.data.results import Book
from plots.text.captions import caption, with_interval


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
        slope = line.slope_ms.times(1e3)
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
