"""python -m bench spread: how far the ratios of several runs lie apart, and whether their intervals knew."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.case import Case, read_case
from bench.case.clocks import CLOCKS
from bench.compare.folders import read_side
from bench.errors import UserError
from bench.record.numbers import with_interval
from bench.record.stats import Estimate
from bench.terminal import output, plain_table

WIDE = 0.10  # of max / min - 1: beyond, the runs do not tell the same


@dataclass(frozen=True)
class Ratio:
    """The ratio of one case, pass and clock in each of the runs."""

    case: Case
    pass_: str
    runs: tuple[Estimate, ...]

    @property
    def spread(self) -> float:
        values = [r.value for r in self.runs]
        return max(values) / min(values) - 1

    @property
    def covered(self) -> int:
        """In how many runs the interval holds the median of the other runs' ratios."""
        n = 0
        for i, run in enumerate(self.runs):
            others = median(r.value for j, r in enumerate(self.runs) if j != i)
            n += run.low is not None and run.high is not None and run.low <= others <= run.high
        return n


def ratios(runs: Sequence[Sequence[dict[str, Any]]]) -> list[Ratio]:
    """The ratios that all runs have, under the headline's clock. runs: the rows of each."""
    clocks = {row["clock"] for rows in runs for row in rows}
    clock = next((c for c in CLOCKS if c in clocks), None)
    found = []
    for rows in runs:
        timed = (r for r in rows if r["clock"] == clock and r.get("ratio") and r["ratio_to"] != r["case_id"])
        found.append({(r["case_id"], r["pass"], r["repeat"]): r for r in timed})
    common = [key for key in found[0] if all(key in run for run in found)]
    return [
        Ratio(
            read_case(found[0][key]),
            key[1],
            tuple(Estimate(run[key]["ratio"], run[key]["ratio_low"], run[key]["ratio_high"]) for run in found),
        )
        for key in common
    ]


def show(folders: Sequence[Path]) -> int:
    """Prints a line for each ratio, and what they come to. Raises UserError where there is nothing to compare."""
    if len(folders) < 2:
        raise UserError(f"{len(folders)} folder given: at least 2 runs of one sweep are needed.")
    sides = [read_side(str(i + 1), folder) for i, folder in enumerate(folders)]
    found = ratios([side.rows for side in sides])
    if not found:
        raise UserError(
            f"{', '.join(map(str, folders))}: no ratio in common. Pass runs of one sweep, measured in rounds."
        )
    numbers = tuple(f"run {i + 1}" for i in range(len(folders)))
    table = plain_table(("case", "pass", *numbers, "spread", "covered"), right=(*numbers, "spread", "covered"))
    for r in found:
        values = (with_interval(run) for run in r.runs)
        table.add_row(r.case.describe(), r.pass_, *values, f"{r.spread:.1%}", f"{r.covered} of {len(r.runs)}")
    console = output()
    console.print(table)
    covered, intervals = sum(r.covered for r in found), sum(len(r.runs) for r in found)
    wide = sum(r.spread > WIDE for r in found)
    spreads = sorted(r.spread for r in found)
    console.print(
        f"{len(found)} ratios, {len(folders)} runs: spread (max / min - 1) at most {spreads[-1]:.1%}, median"
        f" {median(spreads):.1%}; {wide} above {WIDE:.0%}. The interval of a run holds the median of the others in"
        f" {covered} of {intervals} ({covered / intervals:.0%})."
    )
    return 0
