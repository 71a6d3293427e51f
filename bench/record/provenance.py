"""Whether runs may be merged, which depends on where they come from, and run.json of what they come to."""

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import zip_longest
from pathlib import PurePath
from typing import Any

from bench.case.schema import SCHEMA
from bench.errors import UserError, one_of, short
from bench.record.repeats import Part
from bench.record.sources import Source

# What may differ where --allow names it, by the fields of run.json that say it. The text of the sweep counts, too.
ALLOWED = {
    "commit": ("source_hash", "commit", "dirty"), "sweep": (), "torch": ("torch",), "triton": ("triton",),
    "driver": ("driver",), "threads": ("threads",),
}  # fmt: skip
ANYWHERE = ("commit", "sweep")  # counts for the folders of all devices; the others may differ from device to device
KNOWN = ("commit", "dirty")  # a copied tree has none: the same sources are the same all the same


def check_allow(words: Iterable[str]) -> None:
    """Raises UserError for a word that allows nothing."""
    for word in words:
        if word not in ALLOWED:
            raise UserError(one_of("--allow", word, ALLOWED))


def check_alike(sources: Iterable[Source], words: Iterable[str]) -> None:
    """Raises UserError where runs differ in what one of the words stands for, with both values and both folders."""
    runs = [(source, run) for source in sources for run in source.runs]
    for word in words:
        for field in ALLOWED[word]:
            known = [(s, run) for s, run in runs if not (field in KNOWN and run.get(field) is None)]
            for s, run in known:
                if run.get(field) != known[0][1].get(field):
                    told = [f"{short(r.get(field), 200)} in {_place(t, r)}" for t, r in (known[0], (s, run))]
                    raise UserError(f"{field} is {told[0]}, and {told[1]}. {_advice(word)}")
    if "sweep" in words:
        for s, run in runs:
            first, other = (_sweep(t, r) for t, r in (runs[0], (s, run)))
            if first != other:
                places = [_place(t, r) for t, r in (runs[0], (s, run))]
                raise UserError(f"{_difference(first, other, places)}. {_advice('sweep')}")


def _advice(word: str) -> str:
    return f"Rows of both are merged only with --allow {word}."


def _place(source: Source, run: Mapping[str, Any]) -> str:
    return f"{source.folder} (of {run['folder']})" if source.is_merged else str(source.folder)


def sweep_of(source: Source, run_id: str) -> Mapping[str, Any]:
    """The sweep that a run was asked for last, as its record has it; empty where that is unknown."""
    found = [i["sweep"] for i in source.invocations.get(run_id, []) if i.get("sweep")]
    last = found[-1] if found else {}
    return {"name": last} if isinstance(last, str) else last


def stem_of(sweep: Mapping[str, Any]) -> str | None:
    """What a sweep is called, wherever its file lay."""
    name = sweep.get("name")
    return None if name is None else PurePath(name).stem or name


def _sweep(source: Source, run: Mapping[str, Any]) -> tuple[str | None, str | None]:
    found = sweep_of(source, run["run_id"])
    return stem_of(found), found.get("text")


def _difference(a: tuple[str | None, str | None], b: tuple[str | None, str | None], places: Sequence[str]) -> str:
    if a[0] != b[0]:
        return f"the sweep is {short(a[0], 200)} in {places[0]}, and {short(b[0], 200)} in {places[1]}"
    pairs = enumerate(zip_longest((a[1] or "").splitlines(), (b[1] or "").splitlines(), fillvalue=""), 1)
    number, (one, other) = next(((n, pair) for n, pair in pairs if pair[0] != pair[1]), (1, ("", "")))
    return (
        f"the text of the sweep {short(a[0], 200)} differs, first in line {number}: {short(one, 200)} in {places[0]},"
        f" and {short(other, 200)} in {places[1]}"
    )


def merged_run(parts: Sequence[Part]) -> dict[str, Any]:
    """run.json of what these parts come to, in their order: what all runs share, and each run under `merged`."""
    runs: dict[str, dict[str, Any]] = {}
    invocations: dict[str, list[dict[str, Any]]] = {}
    for source in dict.fromkeys(p.source for p in parts):
        for run in source.runs:
            run_id = run["run_id"]
            found = source.invocations.get(run_id, [])
            if run_id not in runs or len(found) > len(invocations[run_id]):
                runs.setdefault(run_id, run)
                invocations[run_id] = found
    order = {run_id: i for i, run_id in enumerate(dict.fromkeys(p.run_id for p in parts))}
    told = sorted(runs.values(), key=lambda run: order.get(run["run_id"], len(order)))
    names = dict.fromkeys(name for run in told for name in run if name not in ("run_id", "folder", "ceilings"))
    digest = hashlib.sha256("\n".join(sorted(runs)).encode()).hexdigest()[:12]
    ceilings = next((run["ceilings"] for run in told if run.get("ceilings")), None)
    every = [i for found in invocations.values() for i in found]
    return {
        "schema": SCHEMA,
        "run_id": f"merged-{digest}",
        **{name: _shared(name, told) for name in names},
        **({"ceilings": ceilings} if ceilings else {}),
        "invocations": sorted(every, key=lambda i: (i.get("started") or "", json.dumps(i, sort_keys=True))),
        "merged": told,
    }


def _shared(name: str, runs: Collection[Mapping[str, Any]]) -> Any:
    """The value that all runs have; None where they differ."""
    values = [run.get(name) for run in runs]
    values = [v for v in values if v is not None or name not in KNOWN] or [None]
    return values[0] if all(v == values[0] for v in values) else None
