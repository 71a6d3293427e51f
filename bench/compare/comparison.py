"""Two results folders, compared: all that is shown of them, in whichever format."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.compare.folders import LeftOut, Side, check_same_device, describe, match, narrow, notes, read_side
from bench.compare.limit import Limit
from bench.compare.sentence import Headline, Judged, closing, headline
from bench.compare.verdict import Outcome, judge, smallest_change
from bench.errors import listed


@dataclass(frozen=True)
class Comparison:
    """A and B, row by row. limit: what --fail asks for."""

    sides: tuple[Side, Side]
    notes: tuple[str, ...]
    judged: tuple[Judged, ...]
    left: tuple[LeftOut, ...]
    head: Headline | None
    limit: Limit | None = None

    @property
    def failed(self) -> list[Judged]:
        """The rows that --fail is about."""
        return [(p, o) for p, o in self.judged if self.fails(o)]

    def fails(self, o: Outcome) -> bool:
        return self.limit is not None and self.limit.hit(o)

    @property
    def sentence(self) -> str:
        """What it comes to."""
        return closing(self.judged, self.head)


def compare_folders(a: Path, b: Path, where: tuple[str, ...] = (), limit: Limit | None = None) -> Comparison:
    """Compares two results folders. Changes nothing. Raises UserError where they cannot be compared."""
    sides = read_side("A", a), read_side("B", b)
    check_same_device(*sides)
    sides = narrow(sides, where)
    pairs, left = match(*sides)
    judged = tuple((p, judge(p.a, p.b, smallest_change(p.key[2]))) for p in pairs)
    return Comparison(sides, tuple(notes(*sides)), judged, tuple(left), headline(judged), limit)


def short_names(cases: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, str]:
    """Short names of cases by their id; the id is added where two would share a name."""
    short = {case_id: describe(axes, case_id) for case_id, axes in cases}
    shared = Counter(short.values())
    return {i: name if shared[name] == 1 else f"{name} [{i}]" for i, name in short.items()}


def left_lines(left: Sequence[LeftOut]) -> list[str]:
    """One line for each case and reason, with the passes and clocks it holds for and the sides that it holds on."""
    names = short_names([(x.key[0], x.axes) for x in left])
    rows: dict[tuple[str, str, str, str], list[str]] = {}
    for x in left:
        head = "compared without" if x.partly else "not compared"
        rows.setdefault((head, names[x.key[0]], x.why, x.side), []).append(f"{x.key[1]} ({x.key[2]})")
    sides: dict[tuple[str, str, str, str], list[str]] = {}
    for (head, name, why, side), found in rows.items():
        sides.setdefault((head, name, why, ", ".join(found)), []).append(side)
    return [f"{head}, {listed(on)}: {name}: {which}: {why}" for (head, name, why, which), on in sides.items()]


def columns(judged: Sequence[Judged]) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the table of rows. What no row has is no column: intervals; and the verdict where there is
    none for the same reason in all rows, which the closing sentence gives once."""
    heads = ["case", "pass", "clock", "A ms", "B ms", "B/A", "95 % interval", "processes", "verdict"]
    names = short_names([(p.key[0], p.axes) for p, _ in judged])
    lines = []
    for pair, o in judged:
        interval = "" if o.low is None else f"{o.low:.3f} to {o.high:.3f}"
        counts = str(o.a_processes) if o.a_processes == o.b_processes else f"{o.a_processes}, {o.b_processes}"
        times = [f"{o.a_ms:.4g}", f"{o.b_ms:.4g}", f"{o.ratio:.3f}", interval, counts]
        lines.append([names[pair.key[0]], *pair.key[1:], *times, o.cell])
    empty = set() if any(o.low is not None for _, o in judged) else {"95 % interval"}
    if empty and len({o.cell for _, o in judged}) == 1:
        empty.add("verdict")
    kept = [i for i, head in enumerate(heads) if head not in empty]
    return [heads[i] for i in kept], [[line[i] for i in kept] for line in lines]
