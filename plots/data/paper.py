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

    @property
    def total_ms(self) -> float:
        return self.forward_ms + self.backward_ms


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
    whole = case.level == "model" and case.trainable_layers == "all"
    if not whole or clock != "eager" or case.impl not in IMPLS or case.model is None:
        return None
    return _published().get((case.model, case.method, case.batch, case.seq))
