"""compare --fail: which verdicts make the exit status 1."""

import re
from dataclasses import dataclass

from bench.compare.verdict import Outcome, Verdict
from bench.errors import UserError, short

MOST = 1000.0  # percent


@dataclass(frozen=True)
class Limit:
    """A row hits it whose verdict is SLOWER, and whose ratio B/A is at least 1 + percent / 100. The verdict says that
    the slowdown is real, by its interval; the ratio itself, not an end of its interval, says how large it is."""

    percent: float = 0.0

    def hit(self, o: Outcome) -> bool:
        return o.verdict is Verdict.SLOWER and o.ratio >= (1 + self.percent / 100) * (1 - 1e-9)

    def __str__(self) -> str:
        return f"SLOWER by at least {self.percent:g} %" if self.percent else "SLOWER"


def parse_limit(text: str) -> Limit:
    """'slower' or 'slower:5%'. Raises UserError."""
    found = re.fullmatch(r"slower(?::(\d{1,4}(?:\.\d{1,6})?)%)?", text)
    if found is None or (percent := float(found[1] or 0)) > MOST:
        raise UserError(
            f"--fail: {short(text)} is not valid. Write slower, for any verdict SLOWER, or slower:5%, for one of 5 % or"
            f" more; at most {MOST:g}%."
        )
    return Limit(percent)
