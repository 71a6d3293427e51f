"""The table over boards, a column for each, and the same as tidy data."""

from plots.boards.side import Side, verdict
from plots.boards.sorting import Kin
from plots.boards.text import caption, place_of
from plots.render.blocks import Table
from plots.tables.summary_csv import Row, axes_columns, cell_columns, ends
from plots.text.numbers import ratio_word, spare_marks

PASS = "forward-backward"


def boards_table(side: Side) -> Table:
    """A line for each model, batch x length and training type."""
    lines = [(*side.first.where(c), *(ratio_word(p.ratio(c)) for p in side.panels.values())) for c in side.cases]
    heads = tuple((name, ()) for name in side.panels)
    return spare_marks(
        Table(f"Ratio to Full-FT: {place_of(side)}", caption(side), side.first.lead, heads, tuple(lines))
    )


def boards_rows(kin: Kin, sides: list[Side]) -> list[Row]:
    """A line for each board and case, Full-FT's included, unrounded."""
    lines: list[Row] = []
    for side in sides:
        for name, panel in side.panels.items():
            for case in panel.in_order:
                ratio = panel.ratio(case)
                lines.append({
                    "board": name, "gpu": kin.folders[name].device, "folder": str(kin.folders[name].path),
                    **axes_columns(case), "case_id": case.case_id, "pass": PASS, "clock": panel.clock,
                    **cell_columns(panel.time(case, PASS)),
                    **ends(ratio.value, "ratio_to_full", "ratio_ci_low", "ratio_ci_high"),
                    "ratio_scope": ratio.scope or None, "verdict": verdict(ratio) or ratio.word or None,
                })  # fmt: skip
    return lines
