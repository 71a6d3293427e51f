"""Several results folders into one: shards of a run, machines of one kind, runs that were repeated."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.case import Case
from bench.case.columns import COLUMNS
from bench.case.names import plain_name
from bench.errors import UserError, listed
from bench.files import refuse_links, replacing
from bench.forks import mapped
from bench.reading import is_there
from bench.record.provenance import ALLOWED, ANYWHERE, check_alike, check_allow, merged_run, stem_of, sweep_of
from bench.record.read import PACKED, ROWS, ROWS_CSV, RUN, SAMPLES, csv_text, read_run
from bench.record.repeats import chosen, parts_of
from bench.record.sources import Id, Lines, Source, are_many, not_merged, read_source
from bench.record.table import Table, line_of

PART = 500  # rows of rows.csv that are in memory at once
# What may change within one folder, as in that of a local run: a commit beside the sources, and the sweep that goes on.
# That the sources are the same, each attempt has seen to.
GOES_ON = frozenset({"commit", "sweep"})


@dataclass(frozen=True)
class Merged:
    """What a merge came to. folders: the records that it wrote, one for each kind of device. notes: what was passed
    over, as sentences."""

    folders: tuple[Path, ...]
    rows: int
    repeats: int  # the most of one case
    empty: tuple[Path, ...]  # folders without a row
    torn: tuple[Path, ...]  # files whose last line is
    left: tuple[str, ...]  # names of what else is in the folders

    @property
    def notes(self) -> list[str]:
        found = [f"{path}: its last line is torn and was passed over" for path in self.torn]
        found += [f"{path}: nothing was measured there yet; passed over" for path in self.empty]
        if self.left:
            more = f" and {len(self.left) - 10} more" if len(self.left) > 10 else ""
            found.append(f"Not merged, and left where it is: {', '.join(self.left[:10])}{more}")
        return found


def merge_records(
    sources: Sequence[Path], out: Path | None, *, allow: frozenset[str] = frozenset(), one_plan: bool = False
) -> Merged:
    """Merges results folders into `out`, which then holds rows.jsonl, samples.jsonl, run.json and rows.csv of all of
    them, or a folder for each kind of device. Whoever calls it keeps others from writing there: see bench.folder.hold.

    one_plan: they are attempts at one plan, such as its shards: of rows with the same case, pass, clock and repeat the
    one that was measured last stands. Else rows with times are repeats, whatever their number was; a row without one
    gives way to one with a time and to a later one. Merging the same again, in another order or together with what
    came of it, writes the same bytes.

    Raises UserError, before anything is written: for damage, for folders that differ in what `allow` does not name, and
    for an `out` whose rows would be lost. OSError where something cannot be written; the old files are whole then.
    """
    return prepare([sources] if one_plan else [[s] for s in sources], out, allow).write()


@dataclass
class Merging:
    """Sources that were read and may be merged. outs: where those of each kind of device go."""

    outs: dict[Path, list[list[Source]]]
    cases: dict[str, Case]
    empty: list[Path]
    many: bool  # so many rows that several processes merge them

    def write(self) -> Merged:
        """Writes all records. Raises as merge_records."""
        sources = [s for groups in self.outs.values() for group in groups for s in group]
        ids = {row.id for source in sources for row in source.rows}
        given = {source.folder.resolve() for source in sources}
        for out in self.outs:
            _check_out(out, ids, out.resolve() in given)
        rows, repeats, parts = 0, 0, {out: parts_of(groups) for out, groups in self.outs.items()}
        with Lines() as lines:
            found = {out: chosen(own, self.cases) for out, own in parts.items()}
            lines.find_samples((row for those in found.values() for row in those), self.many)
            for out, those in found.items():
                out.mkdir(parents=True, exist_ok=True)
                run = merged_run([p for own in parts[out] for p in own])
                _write(out, run, Table(those, self.cases, lines, run), self.many)
                rows += len(those)
                repeats = max(repeats, *Counter(row.key[:3] for row in those).values())
        torn = dict.fromkeys(path for source in sources for path in source.torn)
        return Merged(tuple(self.outs), rows, repeats, tuple(self.empty), tuple(torn), tuple(not_merged(sources)))


def prepare(groups: Sequence[Sequence[Path]], out: Path | None, allow: frozenset[str] = frozenset()) -> Merging:
    """Reads what is to be merged, and changes nothing. groups: folders that are attempts at one plan stand together.
    out: None for results/<key>/merged-<sweep>. Raises UserError as merge_records."""
    check_allow(sorted(allow))
    cases: dict[str, Case] = {}
    empty: list[Path] = []
    kinds: dict[tuple[str | None, int | None], dict[int, list[Source]]] = {}
    once: dict[Path, tuple[int, Path]] = {}
    for group, those in enumerate(groups):
        for folder in those:
            once.setdefault(folder.resolve() if is_there(folder.is_dir) else folder, (group, folder))
    folders = [folder for _, folder in once.values()]
    many = are_many(folders)
    with closing(mapped(_read, folders, many)) as read:
        for (group, folder), (source, found) in zip(once.values(), read, strict=True):
            cases |= {case_id: case for case_id, case in found.items() if case_id not in cases}
            if source is None:
                empty.append(folder)
            else:
                kinds.setdefault(source.gpu, {}).setdefault(group, []).append(source)
    of_kinds = {kind: list(own.values()) for kind, own in kinds.items()}
    sources = [s for of_kind in of_kinds.values() for group_ in of_kind for s in group_]
    if not sources:
        given = ", ".join(str(folder) for group in groups for folder in group) or "no folder given"
        raise UserError(f"{given}: nothing was measured there yet, so there is nothing to merge.")
    check_alike(sources, [word for word in ANYWHERE if word not in allow])
    for of_kind in of_kinds.values():
        same = [s for group_ in of_kind for s in group_]
        check_alike(same, [word for word in ALLOWED if word not in allow and word not in ANYWHERE])
    return Merging(dict(_outs(of_kinds, out)), cases, empty, many)


def _read(folder: Path) -> tuple[Source | None, dict[str, Case]]:
    """A source with its cases."""
    cases: dict[str, Case] = {}
    return read_source(folder, cases), cases


def _outs(
    kinds: dict[tuple[str | None, int | None], list[list[Source]]], out: Path | None
) -> Iterator[tuple[Path, list[list[Source]]]]:
    """Where the sources of each kind of device go: by its key, and by its name where several kinds share one."""
    if out is not None and len(kinds) > 1 and os.path.lexists(out / RUN):
        raise UserError(
            f"{out}: the folders are of several kinds of device, each of which gets a folder in it, and it holds a"
            " record itself. Pass another --out."
        )
    keys = {kind: plain_name(groups[0][0].run.get("gpu_key") or kind[0] or "unknown") for kind, groups in kinds.items()}
    for kind, groups in kinds.items():
        key = keys[kind]
        if list(keys.values()).count(key) > 1:
            named = [plain_name(k[0] or "unknown") for k in kinds if keys[k] == key]
            alone = named.count(plain_name(kind[0] or "unknown")) == 1
            key = f"{key}-{plain_name(kind[0] or 'unknown')}" + ("" if alone else f"-{kind[1]}")
        if out is not None:
            yield (out / key if len(kinds) > 1 else out), groups
            continue
        source = max((s for group in groups for s in group), key=lambda s: s.runs[-1]["run_id"])
        name = stem_of(sweep_of(source, source.runs[-1]["run_id"])) or "unnamed"
        yield Path("results") / key / f"merged-{plain_name(name)}", groups


def _check_out(out: Path, ids: set[Id], given: bool) -> None:
    """Raises UserError where something in the folder would be lost. given: it is among the sources itself."""
    refuse_links(out)
    advice = "Nothing is overwritten: pass another --out"
    there = [name for name in (RUN, ROWS, SAMPLES, PACKED, ROWS_CSV) if os.path.lexists(out / name)]
    if not there:
        return
    run = read_run(out, ("schema", "run_id")) if RUN in there else {}
    if run.get("merged") is None or PACKED in there:
        raise UserError(f"{out}: it holds a record that merge did not make ({', '.join(there)}). {advice}.")
    found = None if given else read_source(out, {})
    lost = [row for row in found.rows if row.id not in ids] if found else []
    if lost and found:
        names = {r["run_id"]: r["folder"] for r in found.runs}
        folders = listed(sorted({names[found.run_of(row)] for row in lost})[:10])
        raise UserError(
            f"{out}: {len(lost)} of its rows, of {folders}, are in none of the given folders and would be lost."
            f" {advice}, or {out} among the folders too."
        )


def _write(out: Path, run: dict[str, Any], table: Table, many: bool) -> None:
    """Writes the record of one kind of device. A reader that comes in between finds files of which each is whole: rows
    are told from samples of other rows by run and process."""
    names = [SAMPLES, ROWS, ROWS_CSV]
    # Cut off before a first run.json is there, it would be a record that merge did not make.
    names = [*names, RUN] if (out / RUN).exists() else [RUN, *names]
    parts = [table.rows[i : i + PART] for i in range(0, len(table.rows), PART)]
    with replacing(*(out / name for name in names)) as drafts, closing(mapped(table.text, parts, many)) as texts:
        files = dict(zip(names, drafts, strict=True))
        files[RUN].write((json.dumps(run, indent=1) + "\n").encode())
        files[ROWS_CSV].write(csv_text(COLUMNS, ()).encode())
        for rows, text in zip(parts, texts, strict=True):
            files[ROWS_CSV].write(text)
            for row in rows:
                files[ROWS].write(line_of(row, table.lines.row(row)))
                if (samples := table.lines.samples(row)) is not None:
                    files[SAMPLES].write(line_of(row, samples))
