"""The closing lines of a run: what failed, where the time went, what cannot run here, and what to do next."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from bench.again import to_list, to_retry
from bench.case import Case
from bench.case.clocks import clocks_of
from bench.case.schema import Status
from bench.record.stats import RATIO_NOISY, Estimate
from bench.record.store import Record
from bench.sweeps.expand import Plan
from bench.terminal import duration


def closing_lines(
    plan: Plan,
    record: Record,
    repeats: int,
    spent: Mapping[str, float] = MappingProxyType({}),
    refused: Sequence[tuple[Case, str]] = (),
    retry: Callable[[Sequence[str]], str] = to_retry,
) -> Iterator[str]:
    """Lines for the end of a run over `plan`. retry: the command that measures rows with these statuses again."""
    wanted = {(c.case_id, p, k, r) for c in plan.cases for p, k in plan.row_keys for r in range(repeats)}
    rows = [row for key in wanted if (row := record.get(key))]
    counts = Counter(row["status"] for row in rows)
    yield f"{len(rows)} rows: " + ", ".join(f"{n} {status}" for status, n in counts.most_common())
    if refused:
        reasons = Counter(reason for _, reason in refused)
        first = "; ".join(f"{n}: {reason}" for reason, n in reasons.most_common(3))
        more = f"; {len(reasons) - 3} more reasons" if len(reasons) > 3 else ""
        yield f"Not run here, {len(refused)} cases ({first}{more}). List: {to_list()}"
    bad = sorted({r["status"] for r in rows} - {Status.ok, Status.unsupported})
    if bad:
        yield f"To measure what failed again: {retry(bad)}"
    told = [r for r in rows if r["clock"] == clocks_of(plan.clocks[0])[0] and r["ratio_to"] not in (None, r["case_id"])]
    wide = sum(not Estimate(r["ratio"], r["ratio_low"], r["ratio_high"]).within(RATIO_NOISY) for r in told)
    if wide:
        # Whether that leaves an answer is for the report to say, which tells of some of them.
        advice = "; to measure again at rest: --fresh --wait-quiet 10m" if 2 * wide > len(told) else ""
        yield f"{wide} of {len(told)} ratios are uncertain by more than {RATIO_NOISY:.0%}{advice}"
    whole = sum(spent.values())
    if whole:
        shares = (f"{what} {duration(s)} ({s / whole:.0%})" for what, s in spent.items() if s / whole >= 0.005)
        yield f"The time went into: {', '.join(shares)}"


def nothing_open(plan: Plan, where: str, record: Record, repeats: int) -> Iterator[str]:
    """Lines for a run that has nothing left to measure. where: the device and the folder."""
    yield f"{plan.name} on {where}: all {len(plan.cases) * repeats} cases are measured"
    yield from closing_lines(plan, record, repeats)
