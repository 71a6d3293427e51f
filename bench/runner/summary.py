"""The closing lines of a run: what failed, where the time went, and one plain sentence."""

from collections import Counter
from collections.abc import Iterator

from bench.case.schema import AXES, Status
from bench.record.store import Record, Row
from bench.runner.progress import duration
from bench.sweeps.expand import Plan

# Axes that belong to the method itself; a ratio to Full-FT compares rows that agree on all others.
OWN_AXES = {"method", "impl", "rank", "alpha", "dropout", "targets", "adapter_dtype"}


def closing_lines(plan: Plan, record: Record, repeats: int, spent: dict[str, float]) -> Iterator[str]:
    """Lines for the end of a run over `plan`."""
    wanted = {(c.case_id, p, k, r) for c in plan.cases for p, k in plan.row_keys for r in range(repeats)}
    rows = [row for key in wanted if (row := record.get(key))]
    counts = Counter(row["status"] for row in rows)
    yield f"{len(rows)} rows: " + ", ".join(f"{n} {status}" for status, n in counts.most_common())
    bad = sorted({r["status"] for r in rows} - {Status.ok, Status.unsupported})
    if bad:
        yield f"To measure what failed again: python -m bench run {plan.sweep} --retry {','.join(bad)}"
    whole = sum(spent.values())
    for what, seconds in spent.items():
        yield f"  {what:<12}{duration(seconds):>8}{seconds / whole:>6.0%}"
    main = [row for row in rows if row["clock"] == plan.clocks[0]]
    sentence = headline(sorted(main, key=lambda r: (str(r["model"]), r["seq"], r["repeat"])))
    if sentence:
        yield sentence


def headline(rows: list[Row]) -> str | None:
    """'LoRA eager took 1.31 +- 0.02 times as long as Full-FT ...' for the slowest LoRA of the rows, if there is one.

    The interval divides the ends of one median's interval by the other's: it is within these processes, and wide.
    """

    def others(row: Row) -> tuple[object, ...]:
        return (*(row[a] for a in AXES if a not in OWN_AXES), row["pass"], row["clock"], row["repeat"])

    timed = [r for r in rows if r["status"] == Status.ok and r["clock"] != "host" and r["pass"] == "forward-backward"]
    full = {others(r): r for r in timed if r["method"] == "full" and r["impl"] == "eager"}
    pairs = [(r, full[others(r)]) for r in timed if r["method"] == "lora" and others(r) in full]
    if not pairs:
        return None
    row, base = max(pairs, key=lambda p: p[0]["median_ms"] / p[1]["median_ms"])
    ratio = row["median_ms"] / base["median_ms"]
    low, high = row["ci_low_ms"] / base["ci_high_ms"], row["ci_high_ms"] / base["ci_low_ms"]
    half = (high - low) / 2
    # Where the interval is wide it is lopsided, and +- would promise ratios that cannot be.
    found = f"{ratio:.2f} +- {half:.2f}" if half < 0.2 * ratio else f"{ratio:.3g} [{low:.3g}, {high:.3g}]"
    where = " ".join(str(x) for x in (row["model"], row["layer"]) if x)
    return (
        f"LoRA {row['impl']} took {found} times as long as Full-FT: forward-backward of {where}"
        f" ({row['level']}) at {row['batch']} x {row['seq']}, {row['precision']}, clock {row['clock']}."
    )
