"""'Where the time goes': launch cost and GPU work side by side, in tables and in plain sentences."""

from collections.abc import Mapping, Sequence

from plots.data.breakdown import GPU_CLOCKS, Extra, Split, make_split
from plots.data.case import Case
from plots.data.load import Folder
from plots.data.panels import Panel, Table, title
from plots.data.results import Book
from plots.text.captions import NOISY, OTHER_CLOCK, caption, difference_word, listed, shape_word, time_word
from plots.text.headline import told

Splits = Mapping[tuple[Case, str], Split]

# The whole first: it is what a person waits for.
SPLIT_PASSES = ("forward-backward", "forward", "backward", "step")
WHAT = (
    "Eager = GPU work + launch gap. GPU work is clock graph: the same work replayed as a CUDA graph, so without any "
    "launch cost. The launch gap is what eager takes beyond it: the GPU waits for Python, C++ and the driver."
)
SAME = "Columns as in the first of these tables."


def split_tables(folder: Folder, book: Book, panel: Panel, splits: Splits) -> list[Table]:
    """One table a pass: a line for each model or layer, batch x length and training type."""
    wanted = set(panel.cases)
    known = {s.pass_ for s in splits.values() if s.case in wanted and (s.gap or s.eager.time)}
    passes = [pass_ for pass_ in SPLIT_PASSES if pass_ in known]
    return [_table(folder, book, panel, splits, pass_, pass_ == passes[0]) for pass_ in passes]


def _table(folder: Folder, book: Book, panel: Panel, splits: Splits, pass_: str, first: bool) -> Table:
    unit, by = ("us", 1e3) if panel.level == "linear" else ("ms", 1.0)  # one layer takes less than a few ms
    clocks = [c for c in (*GPU_CLOCKS, "eager", "host") if any(book.has(case, c) for case in panel.cases)]
    counted = any(book.get_facts(case, pass_).launches is not None for case in panel.cases)
    compared = any(case.method != "full" for case in panel.cases)
    lines = []
    for case in panel.in_order:
        split = splits.get((case, pass_)) or make_split(book, case, pass_)
        groups: list[tuple[str, ...]] = [(time_word(book.get(case, pass_, clock), by),) for clock in clocks]
        groups.append(_gap_words(split, by))
        if counted:
            launches = book.get_facts(case, pass_).launches
            groups.append((f"{launches:.0f}" if launches is not None else split.word or "not measured",))
        if compared:
            groups.append(_extra_words(split.extra, by))
        lines.append((panel.where(case), tuple(groups)))
    shown = [splits[case, pass_] for case in panel.cases if (case, pass_) in splits]
    notes = [*(_columns(book, panel, counted, compared) if first else [SAME]), *_notes(shown)]
    return Table(
        title(folder, f"Where the time goes in {pass_}", panel, clocks=False),
        " ".join([*notes, caption(folder, book, panel.cases, *clocks)]),
        panel.lead,
        (
            *((f"{clock.capitalize()} ({unit})", ("",)) for clock in clocks),
            ("Launch gap", (unit, "of eager")),
            *([("Launches", ("",))] if counted else []),
            *([(f"More than Full-FT ({unit})", ("eager", "GPU work", "launch gap"))] if compared else []),
        ),
        tuple(lines),
    )


def _columns(book: Book, panel: Panel, counted: bool, compared: bool) -> list[str]:
    """What the columns mean."""
    notes = [WHAT]
    notes += ["Host is the time to enqueue the work."] if any(book.has(c, "host") for c in panel.cases) else []
    notes += ["Launches are the nodes of the graph."] if counted else []
    base = list(dict.fromkeys(panel.labels[b] for b in map(book.baseline, panel.cases) if b in panel.labels))
    if compared and base:
        notes.append(f"More than Full-FT: the time less that of {listed(base)} at equal axes, split the same way.")
    return [*notes, "Intervals of differences are put together from the draws of both sides."]


def _notes(shown: Sequence[Split]) -> list[str]:
    """What the marks of this table mean, and what is odd in it."""
    notes = []
    if any(s.gap and s.eager.source != "measured" for s in shown if s.pass_ == "forward-backward"):
        notes.append("The split takes forward + backward, added up, where a clock did not measure both in one go.")
    if any(s.gap and s.gpu.clock != GPU_CLOCKS[0] for s in shown):
        notes.append(f"{OTHER_CLOCK} GPU work is clock device, gap-free eager GPU time, where graph has no time.")
    if odd := sum(s.below_zero for s in shown):
        notes.append(
            f"{odd} of {len(shown)} launch gaps lie below zero beyond their intervals: there the two clocks did not "
            "see the same work, or the GPU ran at another clock rate. Do not trust those splits."
        )
    return notes + ([f"{NOISY} marks rows that were noisy."] if any(s.noisy for s in shown) else [])


def _marks(clock: str, noisy: bool) -> str:
    return (f" {OTHER_CLOCK}" if clock != GPU_CLOCKS[0] else "") + (f" {NOISY}" if noisy else "")


def _gap_words(split: Split, by: float) -> tuple[str, str]:
    if split.gap is None or split.share is None:
        return (split.word,) * 2
    marks = _marks(split.gpu.clock, split.noisy)
    return difference_word(split.gap.times(by), "") + marks, difference_word(split.share, "", 1) + " %" + marks


def _extra_words(extra: Extra, by: float) -> tuple[str, str, str]:
    if extra.eager is None or extra.gpu is None or extra.gap is None:
        return (extra.word,) * 3
    marks = _marks(extra.clock, extra.noisy)
    eager, gpu, gap = (difference_word(found.times(by)) + marks for found in (extra.eager, extra.gpu, extra.gap))
    return eager, gpu, gap


def why(book: Book, panels: Sequence[Panel], splits: Splits) -> list[str]:
    """A sentence a method on where its difference to Full-FT comes from, for the cases that the answer tells of."""
    for panel in panels:
        lines, cases = [], told(book, panel)
        for case in cases:
            split, base = splits.get((case, "forward-backward")), book.baseline(case)
            extra = split.extra if split else Extra()
            if split and base and split.share and extra.eager and extra.gpu and extra.gap:
                share = difference_word(split.share, "", 1)
                lines.append(
                    f"{panel.labels[case]}'s forward-backward on {case.subject} at {shape_word(case.shape)} differs "
                    f"from {panel.labels[base]}'s by {difference_word(extra.eager)} ms: {difference_word(extra.gpu)} "
                    f"ms of GPU work and {difference_word(extra.gap)} ms of launch gap. Launch gaps are {share} % of "
                    f"its own time{' (noisy)' if extra.noisy else ''}."
                )
        if cases:  # the answer tells of this panel, and so does this
            return lines
    return []
