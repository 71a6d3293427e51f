"""The closing lines of a run: what failed, where the time went, and one plain sentence."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from bench.case import Case, read_case
from bench.case.schema import BASELINE, Status
from bench.record.numbers import with_interval
from bench.record.stats import Measured, Repeat, generator, measured
from bench.record.store import Key, Record, Row, key_of
from bench.sweeps.expand import Plan
from bench.terminal import duration


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
    sentence = headline(sorted(main, key=lambda r: (str(r["model"]), r["seq"], r["repeat"])), record.samples())
    if sentence:
        yield sentence


def headline(rows: list[Row], samples: Mapping[Key, Sequence[float]]) -> str | None:
    """'LoRA eager took 1.31 [1.29, 1.33] times as long as Full-FT ...' for the slowest LoRA of the rows, if any."""

    cases: dict[tuple[object, ...], dict[Case, list[Row]]] = {}
    for row in rows:
        if (
            row["status"] == Status.ok
            and row["median_ms"]
            and row["clock"] != "host"
            and row["pass"] == "forward-backward"
        ):
            case = read_case(row)
            cases.setdefault((case.comparison, row["clock"]), {}).setdefault(case, []).append(row)
    found: list[tuple[Measured, Row]] = []
    for alike in cases.values():
        times = [(_time(repeats, samples), repeats[0]) for repeats in alike.values()]
        full = [time for time, row in times if row["method"] == BASELINE and row["impl"] == "eager"]
        found += [(time / full[0], row) for time, row in times if full and row["method"] == "lora"]
    if not found:
        return None
    ratio, row = max(found, key=lambda f: f[0].value)
    where = " ".join(str(x) for x in (row["model"], row["layer"]) if x)
    return (
        f"LoRA {row['impl']} took {with_interval(ratio.estimate)} times as long as Full-FT: forward-backward of {where}"
        f" ({row['level']}) at {row['batch']} x {row['seq']}, {row['precision']}, clock {row['clock']}."
    )


def _time(repeats: list[Row], samples: Mapping[Key, Sequence[float]]) -> Measured:
    found = [
        Repeat(r["median_ms"], r["ci_low_ms"], r["ci_high_ms"], samples.get(key_of(r), ()), r["process"] or "")
        for r in repeats
    ]
    first = repeats[0]
    return measured(found, generator(first["case_id"], first["pass"], first["clock"]))[0]
