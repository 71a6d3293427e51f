"""The published Table 1, for the cases that match it."""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bench.case import Case

PAPER = Path(__file__).resolve().parents[2] / "results" / "paper" / "table1.csv"
# The paper's clock is eager, and what it timed was textbook code or Hugging Face's: nothing else is put beside it.
IMPLS = ("eager", "peft", "peft-fp32")


@dataclass(frozen=True)
class PaperRow:
    """One line of the paper's Table 1, with its ratio of forward + backward to Full-FT where it gives both."""

    gpu: str
    forward_ms: float
    backward_ms: float
    ratio: float | None

    def ms(self, pass_: str) -> float | None:
        """The time of a pass; of forward-backward the sum. None of a step."""
        times = {"forward": self.forward_ms, "backward": self.backward_ms}
        return times.get(pass_, self.forward_ms + self.backward_ms if pass_ == "forward-backward" else None)


@cache
def _published() -> dict[tuple[str, str, int, int], PaperRow]:
    if not PAPER.exists():
        return {}
    with PAPER.open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    total = {_key(x): float(x["forward_ms"]) + float(x["backward_ms"]) for x in lines}
    found = {}
    for x in lines:
        model, _, batch, seq = key = _key(x)
        full = total.get((model, "full", batch, seq))
        found[key] = PaperRow(
            x["gpu"], float(x["forward_ms"]), float(x["backward_ms"]), total[key] / full if full else None
        )
    return found


def _key(line: dict[str, str]) -> tuple[str, str, int, int]:
    return line["model"], line["method"], int(line["batch"]), int(line["seq"])


def paper_row(case: Case, clock: str) -> PaperRow | None:
    """The paper's numbers for a case: the whole model, the same model, method, batch and length, the eager clock."""
    return _published().get((str(case.model), case.method, case.batch, case.seq)) if _matches(case, clock) else None


def paper_line(case: Case, clock: str, pass_: str) -> tuple[float, float] | None:
    """Fixed cost in ms and slope in ms a token, by the line through the paper's two lengths at a case's model, method
    and batch. Two points have no residual, and so no interval."""
    key = (case.model, case.method, case.batch)
    found = [(seq, row.ms(pass_)) for (*same, seq), row in _published().items() if tuple(same) == key]
    if not _matches(case, clock) or len(found) != 2:
        return None
    (short, low), (long, high) = sorted(found)
    if low is None or high is None:
        return None
    slope = (high - low) / (case.batch * (long - short))
    return low - slope * case.batch * short, slope


def _matches(case: Case, clock: str) -> bool:
    whole = case.level == "model" and case.trainable_layers == "all"
    return whole and clock == "eager" and case.impl in IMPLS and not case.has_options and case.scaling is None
