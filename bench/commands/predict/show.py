"""Predictions for people: a table a board and clock, and a sentence a case on what its ratio comes from."""

from collections.abc import Iterator, Sequence

from bench.case.clocks import CLOCKS
from bench.case.predictions import SHOWN
from bench.commands.predict.lines import Line
from bench.commands.why.sentences import name_of, way_of
from bench.predict.boards import Board
from bench.predict.predicted import Host, Predicted, Ratio, as_split
from bench.record.causes import sentence
from bench.record.numbers import with_span
from bench.record.stats import Estimate
from bench.terminal import PlainTable, plain_table


def headline_pass(passes: Sequence[str]) -> str:
    """The pass whose ratio is told."""
    return "forward-backward" if "forward-backward" in passes else passes[-1]


def heading(what: str, day: str, version: str) -> str:
    """What stands above everything that is shown."""
    return (
        f"PREDICTED, not measured: {what}, on {day}, by the fitted numbers {version} (bench/predict/fitted.yaml)."
        f" In brackets: {SHOWN} % intervals"
    )


def stands_for(one: Board, others: Sequence[Board]) -> str:
    """Which board a key means, and that namesakes are others."""
    said = f"--gpu {one.key} is here the {one.name}"
    if others:
        said += f"; others by that name are {', '.join(f'{b.key} ({b.name})' for b in others)}"
    return said


def host_line(host: Host | None, clocks: Sequence[str]) -> str:
    """Which cost of the host was taken, and where it comes from."""
    if host is None or "eager" not in clocks:
        return "Host cost: none taken, since of clock graph the GPU's time alone counts"
    forward, backward = f"{host.forward_us:.3g}", f"{host.backward_us:.3g}"
    cost = f"{forward} us an operator" + ("" if forward == backward else f" forward, {backward} us backward")
    return f"Host cost: {cost}, {host.source}"


def winner(ratio: Ratio) -> str:
    """Which of the two is predicted to be faster; nobody inside of the interval."""
    low, high = ratio.interval(SHOWN)
    return "slower" if low > 1 else "faster" if high < 1 else "no winner told"


def table(lines: Sequence[Line], clock: str, passes: Sequence[str]) -> PlainTable:
    """One line a case of a board."""
    main = headline_pass(passes)
    times = [f"predicted {p} ms" for p in passes]
    bound = ["launch-bound above", *["launch-bound"] * (clock == "eager")] if clock in ("graph", "eager") else []
    ratios = [f"predicted ratio to Full-FT ({main})", "than Full-FT"]
    out = plain_table(("model", "batch x length", "method", *times, *ratios, *bound, "note"), right=(*times, ratios[0]))
    several = len({line.case.precision for line in lines}) > 1
    for line in lines:
        shape = f"{line.case.batch} x {line.case.seq}"
        row = [line.case.subject, shape, line.case.training + f" {line.case.precision}" * several]
        found = [line.found.get((p, clock)) for p in passes]
        row += [with_span(p.ms, *p.interval(SHOWN)) if p else "" for p in found]
        quotient = line.ratio((main, clock))
        is_base = line.base is not None and line.base.case == line.case
        row += [with_span(quotient.value, *quotient.interval(SHOWN)) if quotient else "1" * is_base]
        row += [winner(quotient) if quotient else ""]
        if bound:
            row += _bound(line.found.get((main, clock)), len(bound) == 2)
        out.add_row(*row, _note(line))
    return out


def _bound(found: Predicted | None, with_host: bool) -> list[str]:
    told = "" if found is None else f"{found.host_limit_us:.3g} us an operator"
    return [told, *["" if found is None else "yes" if found.launch_bound else "no"] * with_host]


def _note(line: Line) -> str:
    if line.detail:
        return f"{line.outcome}: {line.detail}"
    return "" if line.base else "no Full-FT is predicted beside it"


def sentences(lines: Sequence[Line], passes: Sequence[str]) -> Iterator[str]:
    """What the ratio of each case of a board comes from, of the headline's pass and clock."""
    main = headline_pass(passes)
    for line in lines:
        clock = next((c for c in CLOCKS if (main, c) in line.found), "")
        quotient = line.ratio((main, clock))
        if quotient is None or line.base is None:
            continue
        key = (main, clock)
        ratio = Estimate(quotient.value, *quotient.interval(SHOWN))
        yield sentence(
            f"{name_of(line.case)} on {line.name}", way_of(line.base.case), f"{main} ({clock})", ratio,
            as_split(line.found[key]), as_split(line.base.found[key]), "is predicted to take", anyhow=True,
        )  # fmt: skip
