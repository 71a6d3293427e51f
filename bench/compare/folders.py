"""Two results folders as the two sides of a comparison: what they hold, which rows match, what has no counterpart.

Reads only: a torn last line stays where it is.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from bench.case import AXES, Case, schema
from bench.compare.verdict import Process
from bench.errors import UserError
from bench.record.read import Row, read_kept_rows, read_run
from bench.record.store import key_of
from bench.where import parse_where, text_of

Key = tuple[str, str, str]  # case_id, pass, clock

# What else than the sources may explain a difference; a difference here is said, not refused.
ENVIRONMENT = ("driver", "torch", "triton", "transformers", "python", "platform", "cores", "threads", "gpu_uuid")


@dataclass(frozen=True)
class Side:
    """One results folder: A or B."""

    name: str
    folder: Path
    run: dict[str, Any]  # run.json
    rows: tuple[Row, ...]  # the latest of every case x pass x clock x repeat
    torn: bool

    def describe(self) -> str:
        """Folder, commit, dirty or not, sources; each where it is known."""
        commit, dirty = self.run.get("commit"), self.run.get("dirty")
        parts = [f"commit {commit[:10]}{', dirty' if dirty else ''}" if commit else "commit unknown"]
        parts.append(f"sources {self.run.get('source_hash')}")
        return f"{self.name}: {self.folder} ({'; '.join(parts)})"


@dataclass(frozen=True)
class Pair:
    """Rows that match: processes with a time on both sides."""

    key: Key
    axes: dict[str, Any]
    a: tuple[Process, ...]
    b: tuple[Process, ...]


@dataclass(frozen=True)
class LeftOut:
    """Rows of one side that are compared with nothing: one case, pass and clock, and why."""

    side: str
    key: Key
    axes: dict[str, Any]
    why: str
    partly: bool = False  # other processes of the same row have times


def read_side(name: str, folder: Path) -> Side:
    """Reads a results folder. Raises UserError where it is none."""
    path = folder / "run.json"
    if not folder.is_dir():
        raise UserError(f"{name}, {folder}: no such folder. Pass one that `python -m bench run` has filled.")
    if not path.exists():
        inside = sorted(p.parent.relative_to(folder).as_posix() for p in folder.glob("*/run.json"))
        hint = f"; results folders in it: {', '.join(inside)}" if inside else ""
        raise UserError(f"{name}, {folder}: no run.json in it, so it is no results folder{hint}")
    run = read_run(folder)
    lines, torn = read_kept_rows(folder)
    rows = tuple({key_of(row): row for row in lines}.values())
    if not rows:
        raise UserError(f"{name}, {folder / 'rows.jsonl'}: no rows; nothing was measured there yet")
    return Side(name, folder, run, rows, torn is not None)


def check_same_device(a: Side, b: Side) -> None:
    """Raises UserError where the two were measured on different devices."""
    if a.run.get("gpu") != b.run.get("gpu"):
        where = " and ".join(f"{s.name}, {s.folder}, on {s.run.get('gpu')!r}" for s in (a, b))
        raise UserError(f"Measured on different devices: {where}. Pass two runs on one kind of GPU or CPU.")


def narrow(sides: tuple[Side, Side], where: tuple[str, ...]) -> tuple[Side, Side]:
    """The rows that every --where lets through. Wall time on a CPU, which holds what other work took, only where it is
    named: CPU time of the same samples stands for it."""
    a, b = (list(s.rows) for s in sides)
    conditions = parse_where(where, (*AXES, "case_id", "pass", "clock"))
    if not any(c.axis == "clock" for c in conditions) and any(r["clock"] == "cpu-time" for r in (*a, *b)):
        a, b = ([r for r in rows if r["clock"] != "cpu"] for rows in (a, b))
    for c in conditions:
        chosen = c.chosen(list(dict.fromkeys(text_of(r.get(c.axis)) for r in (*a, *b))), "is in neither folder")
        a, b = ([r for r in rows if text_of(r.get(c.axis)) in chosen] for rows in (a, b))
    return replace(sides[0], rows=tuple(a)), replace(sides[1], rows=tuple(b))


def match(a: Side, b: Side) -> tuple[list[Pair], list[LeftOut]]:
    """Rows of equal case, pass and clock. Raises UserError where the folders have none in common."""
    in_a, in_b = _by_key(a), _by_key(b)
    if not in_a.keys() & in_b.keys():
        raise UserError(
            f"no rows in common: looked for rows of equal case, pass and clock;"
            f" {_holdings(a, in_a)}; {_holdings(b, in_b)}"
        )
    pairs, left = [], []
    for key in [*in_a, *(k for k in in_b if k not in in_a)]:
        rows = in_a.get(key, []), in_b.get(key, [])
        axes = {x: (*rows[0], *rows[1])[0].get(x) for x in AXES}
        for name, mine, others in ((a.name, *rows), (b.name, rows[1], rows[0])):
            if not others:
                left.append(LeftOut(name, key, axes, f"only in {name}"))
            left += [LeftOut(name, key, axes, why, partly=any(map(_has_time, mine))) for why in _failures(mine)]
        in_time = _processes(rows[0]), _processes(rows[1])
        if all(in_time):
            pairs.append(Pair(key, axes, *in_time))
    return pairs, left


def _by_key(side: Side) -> dict[Key, list[Row]]:
    found: dict[Key, list[Row]] = {}
    for row in side.rows:
        found.setdefault((row["case_id"], row["pass"], row["clock"]), []).append(row)
    return found


def _holdings(side: Side, found: dict[Key, list[Row]]) -> str:
    """What a side has, in few words."""
    cases = list(dict.fromkeys(k[0] for k in found))
    more = f" and {len(cases) - 5} more" if len(cases) > 5 else ""
    passes, clocks = (", ".join(dict.fromkeys(k[i] for k in found)) or "none" for i in (1, 2))
    return (
        f"{side.name}, {side.folder}, has {len(cases)} cases ({', '.join(cases[:5]) or 'none'}{more}),"
        f" passes {passes}, clocks {clocks}"
    )


def _has_time(row: Row) -> bool:
    return row.get("status") == schema.Status.ok and bool(row.get("median_ms"))


def _failures(rows: list[Row]) -> Iterator[str]:
    """'2 of 5 processes oom: detail' for each way in which rows have no time."""
    failed = [r for r in rows if not _has_time(r)]
    for status, n in Counter(str(r.get("status")) for r in failed).items():
        detail = next((r.get("detail") for r in failed if str(r.get("status")) == status), None)
        how_many = "" if n == len(rows) else f"{n} of {len(rows)} processes "
        yield f"{how_many}{status}{f': {detail}' if detail else ''}"


def _processes(rows: list[Row]) -> tuple[Process, ...]:
    """The processes with a time, in the order of the record."""
    found: dict[str, Process] = {}
    for row in rows:
        if _has_time(row):
            name = f"{row.get('run_id')} {row.get('process') or row['repeat']}"
            found[name] = Process(name, row["repeat"], float(row["median_ms"]), _time(row.get("measured_at")))
    return tuple(found.values())


def _time(text: object) -> datetime | None:
    """A moment with its zone; None where it cannot be known."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at if at.tzinfo else None


def notes(a: Side, b: Side) -> Iterator[str]:
    """What a person should know before trusting the comparison."""
    if a.run.get("gpu_key") == "cpu":
        yield "CPU times are no GPU times: they show that the suite works, and how a CPU behaves."
    for side in (a, b):
        if side.torn:
            yield f"{side.folder / 'rows.jsonl'}: the last line is torn; it is not counted"
        noisy = sum(bool(r.get("noisy")) for r in side.rows)
        if noisy:
            yield f"{side.name}: {noisy} of {len(side.rows)} rows are flagged noisy"
    differ = [k for k in ENVIRONMENT if a.run.get(k) != b.run.get(k)]
    if differ:
        what = ", ".join(f"{k} {a.run.get(k)} in A, {b.run.get(k)} in B" for k in differ)
        yield f"the environments differ too: {what}"
    sources = [(s.run.get("source_hash"), {r.get("tuned") for r in s.rows}) for s in (a, b)]
    if sources[0][0] is not None and sources[0] == sources[1]:
        yield "A and B have the same sources: any difference is chance, or comes from the environment"
    settings = [(s.run.get("invocations") or [{}])[-1].get("settings") or {} for s in (a, b)]
    changed = [k for k in sorted({*settings[0], *settings[1]}) if settings[0].get(k) != settings[1].get(k)]
    if changed:
        what = ", ".join(f"{k} {settings[0].get(k)} in A, {settings[1].get(k)} in B" for k in changed)
        yield f"measured with different settings: {what}"


def describe(axes: dict[str, Any], case_id: str) -> str:
    """A case's short name; its id where the row's axes are not this version's."""
    try:
        return Case(**{f.name: axes[f.name] for f in fields(Case)}).describe()
    except (KeyError, TypeError):
        return case_id
