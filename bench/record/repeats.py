"""Which rows of several folders stand in a merged record, in which order, and as which repeats."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, count

from bench.case import Case
from bench.record.sources import Found, Id, Key, Source, first_of


@dataclass(frozen=True)
class Part:
    """What one run measured, or what a folder holds of it. name: of the folder in which it was measured."""

    name: str
    run_id: str
    source: Source
    rows: tuple[Found, ...]


def parts_of(groups: Sequence[Sequence[Source]]) -> list[list[Part]]:
    """Each row once, in the order of a merged record: by groups in the order of time, within them by the names of the
    folders. A group holds the attempts at one plan; the same row in another folder is a copy.

    The order does not depend on that of the sources, nor on whether a merged record is among them.
    """
    apart = len(groups) > 1 or len(groups[0]) > 1  # else the one folder has its order already
    where = {id(s): i for i, group in enumerate(groups) for s in group}
    found: dict[object, list[Part]] = {}
    known: set[Id] = set()
    for source in sorted((s for g in groups for s in g), key=lambda s: (s.is_merged, s.run["run_id"], str(s.folder))):
        new = [row for row in source.rows if row.id not in known]
        known.update(row.id for row in source.rows)
        group = where[id(source)]
        runs: dict[str, list[Found]] = {}
        for row in new:
            runs.setdefault(source.run_of(row) if source.is_merged and apart else "", []).append(row)
        names = {run["run_id"]: run["folder"] for run in source.runs}
        for run_id, rows in runs.items():
            # Of a record that was merged before, every run is as good as the folder that it was measured into.
            own = (group, run_id) if len(groups) > 1 else group
            name = names.get(run_id) or source.folder.resolve().name
            found.setdefault(own, []).append(Part(name, run_id or source.run["run_id"], source, tuple(rows)))
    for parts in found.values():
        parts.sort(key=lambda p: (_natural(p.name), p.run_id, str(p.source.folder)))
    return sorted(found.values(), key=lambda parts: (min(first_of(p.rows) for p in parts), parts[0].run_id))


def _natural(name: str) -> list[tuple[int, str]]:
    """So that 9 comes before 10."""
    return [(int(part), "") if part.isascii() and part.isdigit() else (0, part) for part in re.split("([0-9]+)", name)]


def chosen(groups: Sequence[Sequence[Part]], cases: dict[str, Case]) -> list[Found]:
    """The rows of the merged record, each with the number of its repeat there."""
    latest = [_latest(parts) for parts in groups]
    if len(latest) == 1:
        return list(latest[0].values())
    beaten = _beaten(latest)
    kept = [[row for row in rows.values() if id(row) not in beaten] for rows in latest]
    _number(kept, cases)
    return [row for rows in kept for row in rows]


def _latest(parts: Iterable[Part]) -> dict[Key, Found]:
    """The row that stands for each key: within a folder the last, of several the one that was measured last."""
    found: dict[Key, Found] = {}
    for part in parts:
        for row in part.rows:
            other = found.get(row.key)
            if other is None or other.source is row.source or row.measured_at >= other.measured_at:
                found[row.key] = row
    return found


def _beaten(groups: Sequence[dict[Key, Found]]) -> set[int]:
    """The rows without a time, by their id(), in whose place another group has one with a time, or a later one."""
    by_key: dict[Key, list[Found]] = {}
    for rows in groups:
        for key, row in rows.items():
            by_key.setdefault(key, []).append(row)
    beaten: set[int] = set()
    for those in by_key.values():
        failed = [row for row in those if not row.ok]
        if len(failed) == len(those):
            failed.remove(max(failed, key=lambda r: (r.measured_at, r.run_id or "")))
        beaten.update(map(id, failed))
    return beaten


def _number(groups: Sequence[Sequence[Found]], cases: dict[str, Case]) -> None:
    """Gives every repeat of a comparison its own number where that is free, else the lowest that is: for all of its
    cases at once, since they took turns."""
    alike = {case_id: case.alike for case_id, case in cases.items()}
    taken: set[Key] = set()
    for rows in groups:
        units: dict[tuple[tuple[object, ...], int], list[Found]] = {}
        for row in rows:
            units.setdefault((alike[row.key[0]], row.key[3]), []).append(row)
        used: set[tuple[tuple[object, ...], int]] = set()
        for (what, own), unit in sorted(units.items(), key=lambda item: item[0][1]):
            free = (n for n in chain([own], count()) if (what, n) not in used and not _holds(taken, unit, n))
            number = next(free)
            used.add((what, number))
            for row in unit:
                row.number = number
                taken.add((*row.key[:3], number))


def _holds(taken: set[Key], unit: Iterable[Found], number: int) -> bool:
    return any((*row.key[:3], number) in taken for row in unit)
