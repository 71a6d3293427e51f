"""A comparison as a table on standard output, and as JSON."""

import json
from dataclasses import asdict
from typing import Any

from rich.console import Console

from bench.case import schema
from bench.compare.comparison import Comparison, columns, left_lines
from bench.compare.sentence import tally
from bench.compare.verdict import Outcome, Verdict
from bench.terminal import output, plain_table, shown

STYLES = {Verdict.FASTER: "green", Verdict.SLOWER: "red", Verdict.SAME: "", Verdict.UNCLEAR: "yellow", None: "dim"}


def show(c: Comparison, console: Console | None = None) -> None:
    """Prints the two sides, what to know about them, the table, what was left out, the tally, and one sentence."""
    console = console or output()

    def say(text: str) -> None:
        console.print(shown(text), soft_wrap=True)

    for side in c.sides:
        say(side.describe())
    say(f"on {c.sides[0].run.get('gpu')}; verdicts say what B does relative to A")
    for note in c.notes:
        say(f"note: {note}")
    if c.judged:
        heads, lines = columns(c.judged)
        table = plain_table(heads, right=("A ms", "B ms", "B/A", "processes"), wrap=("case",))
        for cells, (_, o) in zip(lines, c.judged, strict=True):
            style = STYLES[o.verdict] if heads[-1] == "verdict" else ""
            table.add_row(*cells[:-1], shown(cells[-1], style))
        console.print(table)
    for line in left_lines(c.left):
        say(line)
    say(tally(c.judged))
    say(c.sentence)


def as_json(c: Comparison) -> str:
    """The whole comparison as one JSON object."""
    value = {
        "schema": schema.SCHEMA,
        "sides": {s.name: {"folder": str(s.folder), "run": s.run} for s in c.sides},
        "notes": list(c.notes),
        "comparisons": [_key_of(p.key, p.axes) | _outcome(o) | {"fails": c.fails(o)} for p, o in c.judged],
        "left_out": [_key_of(x.key, x.axes) | {"side": x.side, "why": x.why} for x in c.left],
        "counts": {v: sum(o.verdict is v for _, o in c.judged) for v in Verdict},
        "fail": None if c.limit is None else {"slower_percent": c.limit.percent, "rows": len(c.failed)},
        "headline": None
        if c.head is None
        else {"pass": c.head.pass_, "clock": c.head.clock, "cases": c.head.cases} | _outcome(c.head.outcome),
        "tally": tally(c.judged),
        "sentence": c.sentence,
    }
    return json.dumps(value, indent=1) + "\n"


def _key_of(key: tuple[str, str, str], axes: dict[str, Any]) -> dict[str, Any]:
    return {"case_id": key[0], **axes, "pass": key[1], "clock": key[2]}


def _outcome(o: Outcome) -> dict[str, Any]:
    return asdict(o) | {"ratio": o.ratio}
