"""What `advise` predicts for a board that is not here."""

from collections.abc import Callable

from bench.case import Case
from bench.case.predictions import Outcome
from bench.case.schema import BASELINE
from bench.commands.advise.table import Found, name_of
from bench.commands.predict.command import on_boards, traced
from bench.commands.predict.lines import Line
from bench.predict.boards import Board
from bench.predict.predicted import Host, Predicted, ratio
from bench.predict.ops import Trace
from bench.record.shortlist import Option
from bench.record.stats import Estimate
from bench.sweeps.expand import Plan

CLOCK, LEVEL, PASS = "eager", 80, "step"


def predict_found(plan: Plan, board: Board, host: Host, tracer: Callable[[Case, bool], Trace]) -> Found:
    """The cases of a plan as predicted for a board; what is not expressible there is left out."""
    lines = on_boards(plan, traced(plan.cases, tracer, True), [board], (CLOCK,), host)
    found: dict[Case, Predicted] = {line.case: line.found[PASS, CLOCK] for line in lines if line.found}
    base = next((c for c in found if c.method == BASELINE), None)

    def over(case: Case, other: Case) -> Estimate | None:
        if case not in found or other not in found:
            return None
        quotient = ratio(found[case], found[other])
        return Estimate(quotient.value, *quotient.interval(LEVEL))

    options = [
        Option(c, name_of(c), Estimate(p.ms, *p.interval(LEVEL)), over(c, base) if base and c != base else None)
        for c, p in found.items()
    ]
    lost = [(line.case, _why(line)) for line in lines if not line.found and line.outcome is not Outcome.unsupported]
    return Found(options, over, lost, PASS, predicted=True)


def _why(line: Line) -> str:
    return "does not fit" if line.outcome is Outcome.too_large else f"not predicted: {line.detail}"
