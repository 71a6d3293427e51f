"""Why: what the time of a pass goes into, cause by cause, and each cause's part of the difference to Full-FT."""

from collections.abc import Sequence

from bench.case import Case
from bench.case.causes import AGREES, CAUSES
from bench.record.causes import Part, Split
from bench.record.numbers import with_interval
from bench.record.stats import Estimate
from plots.data.causes import Compared, Place, cases_at, causes_in, compared, passes_of, told
from plots.data.labels import shape_word
from plots.data.panels import Panel
from plots.render.blocks import Table
from plots.tables.breakdown import SAME
from plots.text.captions import conditions_of
from plots.text.numbers import difference_word, ratio_word, short
from plots.text.why import source_words

ALL = "all causes"


def causes_tables(panel: Panel, wanted: Sequence[Place]) -> list[Table]:
    """One table a pass for each of the places: a line for each training type and cause."""
    keys = [(place, pass_) for place in wanted for pass_ in passes_of(panel)]
    tables = [table for key in keys if (table := _table(panel, *key, first=key == keys[0]))]
    return [table.without_empty_columns() for table in tables]


def _table(panel: Panel, place: Place, pass_: str, first: bool) -> Table | None:
    found = {case: split for case in cases_at(panel, place) if (split := told(panel, case, pass_).split)}
    lines = [line for case, split in found.items() for line in _lines(panel, case, pass_, split)]
    unit = panel.unit[0]
    notes = [_columns(panel) if first else SAME, conditions_of(panel.results, list(found), panel.clock)]
    subject, size = place
    return Table(
        f"Why: {pass_} by cause, {subject} at {shape_word(size)}, {panel.precision}, clock {panel.clock}",
        " ".join(notes),
        ("Training type", "Cause"),
        (
            (f"Time ({unit})", ()), ("Launches", ()), ("GFLOP", ()), ("MB", ()),
            ("More than Full-FT", (unit, "% of the difference")), ("Ratio to Full-FT", ()),
            ("Profile", ("scale", "remainder (%)")),
        ),
        tuple(lines),
    ) if lines else None  # fmt: skip


def _columns(panel: Panel) -> str:
    """What the columns mean."""
    return (
        f"{source_words(panel)}; docs/why.md explains them. Intervals are over the profiled calls. GFLOP and MB are of "
        "what was launched, by the sizes of its operands. More than Full-FT: the cause's time less that of the same "
        "cause there; its part of the difference is below zero where the cause works against it, and is not told where "
        "the ratio's interval holds 1. Scale: the median over the time of the profiled process. Remainder: the part of "
        f"that time by which profile and clock differ; beyond {100 * AGREES:.0f} % the causes are rough."
    )


def _lines(panel: Panel, case: Case, pass_: str, split: Split) -> list[tuple[str, ...]]:
    """The whole, then the causes that it or Full-FT has."""
    one, label, by = compared(panel, case, pass_), panel.labels[case], panel.unit[1]
    whole, parts = panel.time(case, pass_).time, split.parts
    assert whole is not None, "causes are told of what has a time"
    counts = (_sum([getattr(p, name) for p in parts.values()]) for name in ("launches", "flops", "bytes"))
    lines: list[tuple[str, ...]] = [(
        label, ALL, with_interval(whole.times(by)), *_counted(*counts), *_beyond(one, None, by),
        ratio_word(one.ratio) if one else "", "" if split.scale is None else f"{split.scale:.3g}",
        "not known" if split.remainder is None else f"{100 * split.remainder:.1f}",
    )]  # fmt: skip
    for cause in causes_in([split, one.full] if one else [split]):
        part = parts.get(cause)
        time = "0" if part is None else with_interval(Estimate(part.ms, part.low, part.high).times(by))
        counted = _counted(*(getattr(part or Part(0.0), name) for name in ("launches", "flops", "bytes")))
        lines.append((label, CAUSES[cause].label, time, *counted, *_beyond(one, cause, by), "", "", ""))
    return lines


def _counted(launches: float | None, flops: float | None, size: float | None) -> tuple[str, ...]:
    """Launches, GFLOP and MB; empty where not known."""
    counts = ((launches, 1.0), (flops, 1e9), (size, 1e6))
    return tuple("" if value is None else short(value / by) for value, by in counts)


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _beyond(found: Compared | None, cause: str | None, by: float) -> tuple[str, str]:
    """How much more time than Full-FT one cause takes, or all of them, and its part of the difference."""
    if found is None:
        return "", ""
    if cause is None:
        return short(by * found.total_ms, "+"), found.word or "100"
    more = found.beyond[cause]
    return difference_word(more.times(by)), "" if found.word else f"{100 * more.value / found.total_ms:.0f}"
