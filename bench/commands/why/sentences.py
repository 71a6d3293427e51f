"""The sentences of `why`: what the time of each case and pass goes into beyond Full-FT's."""

from collections import Counter
from collections.abc import Iterator

from bench.case import Case
from bench.case.shapes import takes_turns
from bench.commands.why.folder import Known
from bench.methods.registry import methods
from bench.record.causes import sentence
from bench.record.ratios import ratio_over


def sentences(known: Known) -> Iterator[str]:
    """One for each case and pass that was asked for, has a ratio, and whose causes are known."""
    others = [c for c in known.asked if known.base(c) not in (None, c)]
    names = Counter(map(name_of, others))
    for case in others:
        base = known.base(case)
        assert base is not None
        name = name_of(case) + (f" (case {case.case_id})" if names[name_of(case)] > 1 else "")
        for pass_ in known.passes(case):
            if pass_ not in known.passes(base):
                continue
            split, below = known.split(case, pass_), known.split(base, pass_)
            if split and below:
                ratio = ratio_over(known.timed(case, pass_), known.timed(base, pass_), pass_, known.clock)
                yield sentence(name, way_of(base), pass_, ratio, split, below)


def untold(known: Known) -> Iterator[str]:
    """Why some of what was asked for has no sentence: it, or its baseline, has no time."""
    for case in known.needed:
        for why in known.failures(case):
            yield f"{name_of(case)}: no time, so no causes: {why}"
    for case in known.asked:
        if takes_turns(case.trainable_layers) and known.passes(case):
            yield f"{name_of(case)}: no causes: its time is a mean over stages, and a profile would be of one of them."
    alone = (c for c in known.asked if known.base(c) is None and known.passes(c))
    for where in dict.fromkeys(map(where_of, alone)):
        yield f"{where}: no Full-FT was measured beside it, so there is no ratio to explain. Measure method full too."
    if all(c == known.base(c) for c in known.asked):
        yield "Only Full-FT is asked for: its causes are known, and there is no ratio to explain."


def name_of(case: Case) -> str:
    """'LoRA peft-fp32 r8 on gpt2-medium block bf16 4x512'."""
    return f"{way_of(case)} on {where_of(case)}"


def way_of(case: Case) -> str:
    label = methods()[case.method].label if case.method in methods() else case.method
    return f"{label} {case.training.partition('/')[2]}"


def where_of(case: Case) -> str:
    return f"{case.subject}{' block' if case.level == 'block' else ''} {case.conditions}"
