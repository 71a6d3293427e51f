"""Where the time goes: launch cost and GPU work side by side."""

from collections.abc import Sequence

from bench.case import Case
from bench.case.schema import BASELINE
from bench.errors import listed
from bench.record.numbers import with_interval
from plots.data.breakdown import GPU_CLOCKS, Breakdown, Difference
from plots.data.panels import Panel
from plots.render.blocks import Table
from plots.text.captions import caption, title
from plots.text.numbers import OTHER_CLOCK, difference_word, marked, time_word

PASSES = ("forward-backward", "forward", "backward", "step")  # the whole first: it is what a person waits for
WHAT = (
    "Eager = GPU work + launch gap. GPU work is clock graph: the same work replayed as a CUDA graph, so without any "
    "launch cost. The launch gap is what eager takes beyond it: the GPU waits for Python, C++ and the driver."
)
SAME = "Columns as in the first of these tables."


def breakdown_tables(panel: Panel) -> list[Table]:
    """One table a pass: a line for each model or layer, batch x length and training type."""
    found = {pass_: [panel.breakdown(case, pass_) for case in panel.in_order] for pass_ in PASSES}
    if not any((case, "step", clock) in panel.results.cells for case in panel.cases for clock in GPU_CLOCKS):
        del found["step"]
    passes = [pass_ for pass_, all_cases in found.items() if any(b.gap or b.eager.time for b in all_cases)]
    return [_table(panel, pass_, found[pass_], pass_ == passes[0]) for pass_ in passes]


def _table(panel: Panel, pass_: str, found: Sequence[Breakdown], first: bool) -> Table:
    results = panel.results
    unit, by = panel.unit
    clocks = [c for c in (*GPU_CLOCKS, "eager", "host") if any(results.has(case, c) for case in panel.cases)]
    counted = any(results.get_work(case, pass_).launches is not None for case in panel.cases)
    compared = any(case.method != BASELINE for case in panel.cases)
    lines = []
    for one in found:
        words = [time_word(results.get(one.case, pass_, clock), by) for clock in clocks]
        words += _gap_words(one, by)
        words += [_launches(panel, one.case, pass_, one.word)] * counted
        words += _difference_words(one.beyond, by) if compared else ()
        lines.append((*panel.where(one.case), *words))
    notes = [*(_columns(panel, counted, compared) if first else [SAME]), *_notes(found)]
    return Table(
        title(f"Where the time goes in {pass_}", panel, clocks=False),
        " ".join([*notes, caption(panel, *clocks)]),
        panel.lead,
        (
            *((f"{clock.capitalize()} ({unit})", ()) for clock in clocks),
            ("Launch gap", (unit, "% of eager")),
            *([("Launches", ())] if counted else []),
            *([(f"More than Full-FT ({unit})", ("eager", "GPU work", "launch gap"))] if compared else []),
        ),
        tuple(lines),
    )


def _launches(panel: Panel, case: Case, pass_: str, word: str) -> str:
    launches = panel.results.get_work(case, pass_).launches
    return f"{launches:.0f}" if launches is not None else word or "not measured"


def _columns(panel: Panel, counted: bool, compared: bool) -> list[str]:
    """What the columns mean."""
    notes = [WHAT]
    notes += ["Host is the time to enqueue the work."] if any(panel.results.has(c, "host") for c in panel.cases) else []
    notes += ["Launches are the nodes of the graph."] if counted else []
    if compared and panel.baselines:
        base = listed(panel.baselines)
        notes.append(f"More than Full-FT: the time less that of {base} at equal axes, broken down the same way.")
    return [*notes, "Intervals of differences are put together from the draws of both sides."]


def _notes(found: Sequence[Breakdown]) -> list[str]:
    """What the marks of this table mean, and what is odd in it."""
    notes = []
    if any(b.gap and b.eager.source != "measured" for b in found):
        notes.append("The breakdown takes forward + backward, added up, where a clock did not measure both in one go.")
    if any(b.gap and b.gpu.clock != GPU_CLOCKS[0] for b in found):
        notes.append(f"{OTHER_CLOCK} GPU work is clock device, gap-free eager GPU time, where graph has no time.")
    if odd := sum(b.below_zero for b in found):
        notes.append(
            f"{odd} of {sum(bool(b.gap) for b in found)} launch gaps lie below zero beyond their intervals: there the "
            "two clocks did not see the same work, or the GPU ran at another clock rate. Do not trust those lines."
        )
    return notes


def _gap_words(found: Breakdown, by: float) -> tuple[str, str]:
    if found.gap is None or found.share is None:
        return (found.word,) * 2
    words = with_interval(found.gap.times(by)), with_interval(found.share, 1)
    gap, share = (marked(word, found.noisy, found.gpu.clock != GPU_CLOCKS[0]) for word in words)
    return gap, share


def _difference_words(found: Difference, by: float) -> tuple[str, ...]:
    parts = [one for one in (found.eager, found.gpu, found.gap) if one]
    if not parts:
        return (found.word,) * 3
    other = found.clock != GPU_CLOCKS[0]
    return tuple(marked(difference_word(one.times(by)), found.noisy, other) for one in parts)
