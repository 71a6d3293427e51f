"""full, lora and paca, impls compile and peft-compile: torch.compile, with its defaults, of what is timed."""

from collections import Counter

import torch
from torch import nn
from torch._dynamo.utils import calculate_time_spent, counters

from bench.case import Case
from bench.methods.adapt import Trained
from bench.methods.registry import method_of

_before_resets_s: list[float] = []


def apply(model: nn.Module, case: Case) -> Trained:
    """What eager, or peft, trains. The module that is called compiles at its first call, for its own shapes alone."""
    found = method_of(case).impls["peft" if case.impl == "peft-compile" else "eager"].load()(model, case)
    _before_resets_s.append(_since_reset_s())
    torch._dynamo.reset()  # what other cases of this process compiled would count towards the limit of recompilations
    counters.clear()
    timed = model if case.level == "model" else next(model.children())
    # Its forward and not itself: names stay as they are, and so do hooks, which a compiled module would take inside.
    setattr(timed, "forward", torch.compile(timed.forward, dynamic=False))  # noqa: B010
    return found


def _since_reset_s() -> float:
    return calculate_time_spent()["total_wall_time"]


def compiling_s() -> float:
    """Seconds that torch.compile took in this process, forward and backward, by its own account."""
    return sum(_before_resets_s) + _since_reset_s()


def note(model: nn.Module, case: Case) -> str:
    """How many graph breaks there were since `apply`, and why: each costs a return to Python."""
    breaks: Counter[str] = counters["graph_break"]
    count = sum(breaks.values())
    reasons = "; ".join(reason.splitlines()[0][:100] for reason in list(breaks)[:2])
    return f"{count} graph break{'' if count == 1 else 's'}" + (f": {reasons}" if reasons else "")
