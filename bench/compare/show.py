"""A comparison as a table on standard output, and as JSON."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.case import schema
from bench.compare.folders import LeftOut, Side, describe
from bench.compare.sentence import Headline, Judged, tally
from bench.compare.verdict import Outcome, Verdict
from bench.errors import UserError
from bench.files import write_named
from bench.terminal import output, plain_table, shown

STYLES = {Verdict.FASTER: "green", Verdict.SLOWER: "red", Verdict.SAME: "", Verdict.UNCLEAR: "yellow", None: "dim"}
NOTHING = "No row has times on both sides: there is nothing to compare."


def show(
    sides: tuple[Side, Side],
    notes: Sequence[str],
    judged: Sequence[Judged],
    left: Sequence[LeftOut],
    head: Headline | None,
    console: Console | None = None,
) -> None:
    """Prints the two sides, what to know about them, the table, what was left out, the tally, and one sentence."""
    console = console or output()

    def say(text: str) -> None:
        console.print(shown(text), soft_wrap=True)

    for side in sides:
        say(side.describe())
    say(f"on {sides[0].run.get('gpu')}; verdicts say what B does relative to A")
    for note in notes:
        say(f"note: {note}")
    if judged:
        console.print(_table(judged))
    for line in _left_lines(left):
        say(line)
    say(tally(judged))
    say(head.sentence if head else NOTHING)


def _table(judged: Sequence[Judged]) -> Table:
    columns = ("case", "pass", "clock", "A ms", "B ms", "B/A", "95 % interval", "processes", "verdict")
    table = plain_table(columns, right=("A ms", "B ms", "B/A", "processes"), wrap=("case",))
    names = _names([(p.key[0], p.axes) for p, _ in judged])
    for pair, o in judged:
        interval = "" if o.low is None else f"{o.low:.3f} to {o.high:.3f}"
        counts = str(o.a_processes) if o.a_processes == o.b_processes else f"{o.a_processes}, {o.b_processes}"
        times = [f"{o.a_ms:.4g}", f"{o.b_ms:.4g}", f"{o.ratio:.3f}", interval, counts]
        table.add_row(names[pair.key[0]], *pair.key[1:], *times, shown(o.cell, STYLES[o.verdict]))
    return table


def _names(cases: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, str]:
    """Short names of cases by their id; the id is added where two would share a name."""
    short = {case_id: describe(axes, case_id) for case_id, axes in cases}
    shared = Counter(short.values())
    return {i: name if shared[name] == 1 else f"{name} [{i}]" for i, name in short.items()}


def _left_lines(left: Sequence[LeftOut]) -> list[str]:
    """One line for each side, case and reason, with the passes and clocks it holds for."""
    names = _names([(x.key[0], x.axes) for x in left])
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for x in left:
        head = "compared without" if x.partly else "not compared"
        grouped.setdefault((f"{head}, {x.side}", names[x.key[0]], x.why), []).append(f"{x.key[1]} ({x.key[2]})")
    return [f"{head}: {name}: {', '.join(rows)}: {why}" for (head, name, why), rows in grouped.items()]


def write_json(
    path: Path,
    sides: tuple[Side, Side],
    notes: Sequence[str],
    judged: Sequence[Judged],
    left: Sequence[LeftOut],
    head: Headline | None,
) -> None:
    """The whole comparison as one JSON object. Raises UserError where it cannot be written."""
    value = {
        "schema": schema.SCHEMA,
        "sides": {s.name: {"folder": str(s.folder), "run": s.run} for s in sides},
        "notes": list(notes),
        "comparisons": [_key_of(p.key, p.axes) | _outcome(o) for p, o in judged],
        "left_out": [_key_of(x.key, x.axes) | {"side": x.side, "why": x.why} for x in left],
        "counts": {v: sum(o.verdict is v for _, o in judged) for v in Verdict},
        "headline": None
        if head is None
        else {"pass": head.pass_, "clock": head.clock, "cases": head.cases} | _outcome(head.outcome),
        "tally": tally(judged),
        "sentence": head.sentence if head else NOTHING,
    }
    try:
        write_named(path, json.dumps(value, indent=1) + "\n")
    except OSError as e:
        raise UserError(f"--json {path}: {e.strerror}") from None


def _key_of(key: tuple[str, str, str], axes: dict[str, Any]) -> dict[str, Any]:
    return {"case_id": key[0], **axes, "pass": key[1], "clock": key[2]}


def _outcome(o: Outcome) -> dict[str, Any]:
    return asdict(o) | {"ratio": o.ratio}
