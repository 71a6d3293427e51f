"""Why a method is slower or faster than Full-FT, in sentences made of causes.csv."""

import shlex
from collections.abc import Sequence

from bench.case.causes import AGREES
from bench.case.schema import PASSES
from bench.errors import listed
from bench.record.causes import CAUSES_CSV, sentence
from plots.data.causes import MISSING, STALE, Compared, Told, cases_at, compared, passes_of, places, told
from plots.data.labels import distinct, shape_word
from plots.data.panels import Panel
from plots.render.blocks import Block, Code, Heading, Items, Para
from plots.text.captions import panel_place
from plots.text.sections import shown

MAX_ROUGH = 4  # passes named whose profile and clock disagree
SOURCES = {
    "operators": "of a CPU's operators, each without what it calls (self times)",
    "kernels": "of the GPU's kernels",
}


def why(panels: Sequence[Panel], whole: str) -> list[Block]:
    """Sentences for each panel that has times, and in a line each what cannot be told and the command that changes
    it. The file called `whole` has all tables."""
    timed = [p for p in panels if any(p.time(case, pass_).time for case in p.cases for pass_ in PASSES)]
    if not timed:
        return []
    folder = timed[0].results.folder
    blocks: list[Block] = []
    if not folder.causes:
        blocks.append(Para(f"What the time goes into is not told: there is no {CAUSES_CSV} in this folder."))
    for panel in timed if folder.causes else ():
        where = f"{panel_place(panel)}, {panel.precision}"
        blocks += [Heading(f"{where[0].upper()}{where[1:]}", 3)] if timed[1:] else []
        blocks += _of_panel(panel)
    if any(places(panel)[1:] for panel in timed):
        blocks.append(Para(f"{whole} has the causes of all models and sizes that {CAUSES_CSV} has."))
    if not folder.causes or any(_unfilled(panel) for panel in timed):
        blocks += [Para("To fill it:"), Code(f"python -m bench why {shlex.quote(shown(folder.path))}")]
    return blocks


def sentence_of(panel: Panel, found: Compared) -> str:
    """'LoRA eager forward takes 1.58 times Full-FT eager's: of the extra 36.1 ms, 61 % is branch GEMMs, ...'"""
    assert found.ratio.value is not None, "a comparison has a ratio"
    names = panel.labels[found.case], panel.labels[found.base]
    return sentence(*names, found.pass_, found.ratio.value, found.split, found.full)


def source_words(panel: Panel) -> str:
    """What was timed, and what the times were scaled to."""
    sources = distinct(split.source for one in _at_first(panel) if (split := one.split))
    return (
        f"The times are those {listed([SOURCES[source] for source in sources])}, profiled after the timing in "
        f"processes in which nothing is timed, and scaled to the medians of clock {panel.clock}, so that all causes of "
        "a pass add up to its time"
    )


def _of_panel(panel: Panel) -> list[Block]:
    lacking = [Para(words) for words in _lacking(panel)]
    if not places(panel):
        return [*lacking]
    (subject, size), passes = places(panel)[0], passes_of(panel)
    cases = cases_at(panel, (subject, size))
    found = [one for case in cases for pass_ in passes if (one := compared(panel, case, pass_))]
    blocks: list[Block] = [Para(f"{subject} at {shape_word(size)}. {source_words(panel)}; docs/why.md explains them.")]
    blocks += [Items(tuple(sentence_of(panel, one) for one in found))] if found else []
    if not any(panel.is_full(case) for case in cases):
        blocks.append(Para("Full-FT was not measured here, so there is no difference to explain."))
    rough = {
        f"{panel.labels[one.case]} {one.pass_}": s for one in _at_first(panel) if (s := one.split) and not s.agrees
    }
    if rough:
        parts = ["not known" if s.remainder is None else f"{100 * s.remainder:.1f} %" for s in rough.values()]
        each = [f"{name} ({part})" for name, part in zip(rough, parts, strict=True)]
        more = [f"{len(each) - MAX_ROUGH} more (the tables have all)"] if each[MAX_ROUGH:] else []
        where = listed([*each[:MAX_ROUGH], *more])
        blocks.append(Para(f"Profile and clock differ by more than {100 * AGREES:.0f} % in {where}: a rough account."))
    return [*blocks, *lacking]


def _at_first(panel: Panel) -> list[Told]:
    """What there is for each case and pass of the place that is told of; of all cases where no place has any."""
    found = places(panel)
    cases = cases_at(panel, found[0]) if found else panel.in_order
    return [told(panel, case, pass_) for case in cases for pass_ in passes_of(panel) or ("forward", "backward")]


def _unfilled(panel: Panel) -> bool:
    return any(one.word in (MISSING, STALE) for one in _at_first(panel))


def _lacking(panel: Panel) -> list[str]:
    """A sentence for each reason why a training type has no causes here."""
    named: dict[str, dict[str, list[str]]] = {}
    for one in _at_first(panel):
        if one.word not in ("", "not measured"):
            passes = named.setdefault(one.word, {}).setdefault(panel.labels[one.case], [])
            passes += [one.pass_] if one.pass_ not in passes else []
    whole = len(passes_of(panel) or ("forward", "backward"))
    said = []
    for word, types in named.items():
        names = listed([t if len(passes) == whole else f"{t} {listed(passes)}" for t, passes in types.items()])
        if word == MISSING:
            said.append(f"{CAUSES_CSV} has nothing of {names} under clock {panel.clock}.")
        elif word == STALE:
            are = "were" if types.keys() - list(types)[:1] else "was"
            said.append(f"{names} {are} measured again since {CAUSES_CSV} was written, so their causes are not told.")
        else:
            said.append(f"{names}: {word}.")
    return said
