"""The ratio of one case's time to another's in one pass and clock, for the rows, the terminal, the tables and the page.

Cases that took turns are compared round by round, so that what drifts in both cancels. Of times that were measured
apart from each other only the quotient of their medians is left, and its interval has the drift in it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.case import Case, read_case
from bench.case.clocks import between_starts
from bench.case.schema import BASELINE, Status
from bench.record.stats import (
    MIN_SAMPLES,
    Estimate,
    Measured,
    Repeat,
    generator,
    measured,
    ratio_estimate,
    ratios_by_round,
)

Row = dict[str, Any]


def ratio_of(
    ours: Sequence[Repeat], theirs: Sequence[Repeat], quotient: Measured, *key: object
) -> tuple[Measured, Estimate]:
    """Our time over theirs, and its interval, over our repeats.

    A repeat that took turns with the other case gives the ratio that its rounds have: as recorded where the other is
    its baseline, else paired here. Without any such repeat it is `quotient`, of both sides' medians. `key`: what the
    ratio is of, such as pass and clock; the same key and repeats give the same digits.
    """
    found = [ratio for one in ours if (ratio := _in_turns(one, theirs))]
    if not found:
        return quotient, quotient.estimate
    return measured(found, generator(ours[0].case_id, theirs[0].case_id, *key))


def _in_turns(one: Repeat, theirs: Sequence[Repeat]) -> Repeat | None:
    """The ratio of a repeat to the other case by its rounds, or by its row, as a repeat whose values are no ms."""
    ids = {other.case_id for other in theirs}
    is_base = bool(one.ratio_to) and one.ratio_to in ids
    found, series = one.ratio if is_base else None, one.ratios if is_base else ()
    other = next((t for t in theirs if one.turns and t.turns == one.turns and t.rounds), None)
    if not series and not found and other and one.rounds:
        series = ratios_by_round(one.samples_ms, one.rounds, other.samples_ms, other.rounds)
    if not found and not series:
        return None
    told = found or ratio_estimate(series, one.between)
    return Repeat(told.value, told.low, told.high, series if len(series) >= MIN_SAMPLES else (), one.process)


def baselines(cases: Iterable[Case]) -> dict[tuple[object, ...], Case]:
    """Full-FT by the axes that a ratio must share; where it was measured in several ways, the plainest: eager, without
    checkpointing, and with the usual optimizer."""
    full = [c for c in cases if c.method == BASELINE]
    return {c.comparison: c for c in sorted(full, key=lambda c: c.plainness, reverse=True)}


def with_ratios(rows: Sequence[Row], lines: Iterable[Row]) -> list[Row]:
    """The rows of a record, those without a ratio with the one to their baseline's row in the same pass, clock and
    repeat, where both have times. `lines`: those of samples.jsonl; of several with the same key the last counts."""
    cases = {row["case_id"]: read_case(row) for row in rows}
    full = baselines(cases.values())
    samples = {_key(line): line for line in lines}
    timed = {_key(r): r for r in rows if r["status"] == Status.ok and r["median_ms"]}
    found, middles = [], dict[tuple[Any, ...], Measured]()  # of baselines, since many rows share one
    for row in rows:
        base = full.get(cases[row["case_id"]].comparison)
        other = timed.get((base.case_id, *_key(row)[1:])) if base else None
        if other and _key(row) in timed and row.get("ratio") is None:
            ours, theirs, key = _repeat(row, samples), _repeat(other, samples), (row["pass"], row["clock"])
            if _key(other) not in middles:
                middles[_key(other)] = _middle([theirs], *key)
            told = ratio_over([ours], [theirs], *key, below=middles[_key(other)])
            row = row | {
                "ratio": told.value,
                "ratio_low": told.low,
                "ratio_high": told.high,
                "ratio_to": other["case_id"],
            }
        found.append(row)
    return found


def repeats_of(rows: Sequence[Row], lines: Iterable[Row]) -> dict[tuple[str, str, str], list[Repeat]]:
    """What was timed, by case_id, pass and clock. `rows`, `lines`: as for with_ratios. Of repeats under several tuned
    tiles, which are several kernels, those under the latest's."""
    samples = {_key(line): line for line in lines}
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row["status"] == Status.ok and row["median_ms"]:
            found.setdefault((row["case_id"], row["pass"], row["clock"]), []).append(row)
    latest = {key: max(timed, key=lambda r: r["measured_at"] or "")["tuned"] for key, timed in found.items()}
    return {key: [_repeat(r, samples) for r in timed if r["tuned"] == latest[key]] for key, timed in found.items()}


def ratio_over(ours: Sequence[Repeat], theirs: Sequence[Repeat], *key: str, below: Measured | None = None) -> Estimate:
    """Our time over theirs, over all repeats, under the seeds that the tables use. key: pass and clock. below: theirs,
    where it was worked out before."""
    if ours[0].case_id == theirs[0].case_id:
        return Estimate(1.0, 1.0, 1.0)
    return ratio_of(ours, theirs, _middle(ours, *key) / (below or _middle(theirs, *key)), *key)[1]


def _middle(repeats: Sequence[Repeat], *key: str) -> Measured:
    return measured(repeats, generator(repeats[0].case_id, *key))[0]


def _repeat(row: Row, lines: Mapping[tuple[Any, ...], Row]) -> Repeat:
    """A row and its line of samples, unless those are another measurement's. Two runs may have begun their turns in
    the same moment: only within one can samples be paired."""
    line = lines.get(_key(row), {})
    line = line if is_of(line, row) else {}
    turns = line.get("turns") and f"{row['run_id']} {line['turns']}"
    ratio = Estimate(row["ratio"], row["ratio_low"], row["ratio_high"]) if row["ratio"] else None
    return Repeat(
        row["median_ms"], row["ci_low_ms"], row["ci_high_ms"], line.get("samples_ms", ()), row["process"] or "",
        row["case_id"], line.get("rounds") or (), turns or "", line.get("ratio_to") or row["ratio_to"] or "",
        ratio, line.get("ratios") or (), between_starts(row["clock"]),
    )  # fmt: skip


def is_of(line: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether a line of samples with a row's key holds the samples behind it: those of the same run and process."""
    same = line.get("process") is None or row.get("process") is None or line["process"] == row["process"]
    return same and line.get("run_id") == row.get("run_id")


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["case_id"], row["pass"], row["clock"], row["repeat"]
