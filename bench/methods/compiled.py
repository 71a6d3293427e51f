"""The axis compile: torch.compile of what is timed, whatever its method and impl."""

from collections import Counter

import torch
from torch import nn
from torch._dynamo.utils import calculate_time_spent, counters

from bench.case import Case

_before_resets_s: list[float] = []


def compile_timed(model: nn.Module, case: Case) -> None:
    """The module that is called compiles at its first call, for its own shapes alone, in the case's mode."""
    _before_resets_s.append(_since_reset_s())
    torch._dynamo.reset()  # what other cases of this process compiled would count towards the limit of recompilations
    counters.clear()
    timed = model if case.level == "model" else next(model.children())
    # Its forward and not itself: names stay as they are, and so do hooks, which a compiled module would take inside.
    setattr(timed, "forward", torch.compile(timed.forward, dynamic=False, mode=case.compile))  # noqa: B010


def _since_reset_s() -> float:
    return calculate_time_spent()["total_wall_time"]


def compiling_s() -> float:
    """Seconds that torch.compile took in this process, forward and backward, by its own account."""
    return sum(_before_resets_s) + _since_reset_s()


def note() -> str:
    """How many graph breaks there were since `compile_timed`, and why: each costs a return to Python."""
    breaks: Counter[str] = counters["graph_break"]
    count = sum(breaks.values())
    reasons = "; ".join(reason.splitlines()[0][:100] for reason in list(breaks)[:2])
    return f"{count} graph break{'' if count == 1 else 's'}" + (f": {reasons}" if reasons else "")
