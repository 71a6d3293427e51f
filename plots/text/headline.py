"""The answer in one plain sentence."""

from plots.data.case import METHODS, Case
from plots.data.load import Folder
from plots.data.panels import Panel
from plots.data.results import Book, Ratio
from plots.text.captions import RATIO_PLACES, distinct, listed, place, shape_word, with_interval


def answer(folder: Folder, book: Book, all_panels: list[Panel]) -> str:
    """One plain sentence from the data, for the first panel in which a ratio could be formed."""
    for panel in all_panels:
        if said := _ratios_said(book, panel):
            where = f"{place(folder, panel.level)}, {panel.precision or 'unknown precision'}, clock {panel.clock}"
            return f"{where[0].upper()}{where[1:]}: {listed(said)}."
    if not book.cases:
        return "Nothing has been measured in this folder yet."
    if not any(cell.time for cell in book.cells.values()):
        statuses = distinct(cell.status for cell in book.failures.values())
        return f"None of the {len(book.cases)} cases gave a time (status {listed(statuses)}): there is no answer yet."
    return "No ratio to Full-FT could be formed: Full-FT and another method are needed at equal axes."


def told(book: Book, panel: Panel) -> dict[Case, list[Ratio]]:
    """The cases that the answer tells of, one a method, each with the ratios of all cases of its training type.

    Of a method it is the first training type, at the longest time: the largest model at the largest size.
    """
    chosen: dict[Case, list[Ratio]] = {}
    for method in [m for m in METHODS if m != "full"]:
        ratios = {c: book.ratio(c, "forward-backward", panel.clock) for c in panel.cases if c.method == method}
        types = [t for t in panel.types if any(panel.labels[c] == t and r.value for c, r in ratios.items())]
        if types:
            found = {c: r for c, r in ratios.items() if panel.labels[c] == types[0] and r.value}
            cells = {c: book.get(c, "forward-backward", panel.clock) for c in found}
            chosen[max(found, key=lambda c: t.value if (t := cells[c].time) else 0.0)] = list(found.values())
    return chosen


def _ratios_said(book: Book, panel: Panel) -> list[str]:
    """'LoRA eager took 1.31 ± 0.02 times Full-FT's forward-backward on ...' for each case that is told of."""
    said: list[str] = []
    for case, ratios in told(book, panel).items():
        ratio, base = book.ratio(case, "forward-backward", panel.clock), book.baseline(case)
        assert ratio.value is not None and base is not None, "a case with a ratio has both"
        values = [r.value.value for r in ratios if r.value]
        over = f" {panel.labels[base]}'s forward-backward" if not said else ""
        many = f"; {min(values):.2f} to {max(values):.2f} over all {len(values)} cases" if len(values) > 1 else ""
        said.append(
            f"{panel.labels[case]} took {with_interval(ratio.value, RATIO_PLACES)} times{over} on {case.subject} at "
            f"{shape_word(case.shape)} (interval {ratio.scope}{', noisy' if ratio.noisy else ''}{many})"
        )
    return said
