"""What `advise` predicts for a board that is not here: times by bench.predict, memory by closed form."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.case import Case
from bench.case.predictions import Outcome
from bench.case.schema import BASELINE
from bench.commands.advise.request import Asked, Kinds
from bench.commands.advise.table import Found, Room, name_of, room_by_formula
from bench.commands.predict.command import on_boards, traced
from bench.commands.predict.lines import Line
from bench.predict.boards import Board
from bench.predict.ops import Trace
from bench.predict.predicted import Host, Predicted, ratio
from bench.record.shortlist import Option
from bench.record.stats import Estimate
from bench.sweeps.expand import Plan
from bench.sweeps.of_model import ModelRequest, model_plan

CLOCK, LEVEL, PASS = "eager", 80, "step"


class Forecast:
    """Predicts for one request."""

    folder: Path | None = None  # nothing is kept

    def __init__(self, asked: Asked, board: Board, host: Host, tracer: Callable[[Case, bool], Trace]) -> None:
        """host: what an operator costs it; tracer: what finds a case's operators."""
        self._board, self._host, self._tracer = board, host, tracer
        self.place = f"{board.name}, predicted with a host of {host.forward_us:.3g} us an operator ({host.source})"
        self.limit = asked.memory or (None if board.memory_gib is None else round(board.memory_gib * 2**30))

    def plan(self, request: ModelRequest) -> Plan:
        return model_plan(request, on_cpu=False)

    def find(self, request: ModelRequest, only: Kinds | None = None) -> Found:
        """The cases as predicted; what cannot be expressed there is left out."""
        plan = self.plan(request)
        cases = tuple(c for c in plan.cases if only is None or (c.method, c.impl) in only)
        plan = replace(plan, cases=cases)
        lines = on_boards(plan, traced(cases, self._tracer, True), [self._board], (CLOCK,), self._host)
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
        lost = [(line.case, _why(line)) for line in lines if not line.found and line.outcome != Outcome.unsupported]
        return Found(options, over, lost, PASS, predicted=True)

    def rooms(self, found: Found) -> dict[Case, Room]:
        """By closed form."""
        return {o.case: room_by_formula(o.case, self.limit) for o in found.options}

    def with_peaks(self, found: Found) -> Found:
        """As it is: there is no peak but the estimate."""
        return found


def _why(line: Line) -> str:
    return "does not fit" if line.outcome == Outcome.too_large else f"not predicted: {line.detail}"
