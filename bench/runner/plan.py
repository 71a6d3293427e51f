"""What a run still has to do, in comparisons; and what it came to."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.case import Case
from bench.case.schema import BASELINE, Status
from bench.devices import Device
from bench.errors import UserError, short
from bench.folder import usable
from bench.methods.registry import impl_of
from bench.record.store import Record
from bench.sweeps.expand import Plan
from bench.sweeps.of_model import ModelRequest, folder_name, plan_of

Task = tuple[int, Case]  # (repeat, case)

RESERVED = ("reference", "earlier")  # in results/<key>: what is published, and what has given way
COMPARED = "compare-"  # begins the folders of compare --run there
LONGEST = 100  # bytes of a folder's name: what is put in front of it, and file names in it, must fit as well
MOST_ROWS = 1_000_000


def plan_into(
    asked: str | ModelRequest, device: Device, where: tuple[str, ...], repeats: int, out: Path | None
) -> tuple[Plan, Path]:
    """What is measured on a device, and the folder that it goes into. Raises UserError."""
    plan = plan_of(asked, device.is_cpu, where)
    if not plan.cases:
        raise UserError(f"--where {' '.join(where)}: no case is left to measure")
    check_size(plan, repeats)
    return plan, usable("--out", out or results_folder(Path("results") / device.key, folder_name(plan)))


def open_tasks(plan: Plan, record: Record, repeats: int, retry: frozenset[str], tuned: str | None = None) -> list[Task]:
    """What is still to be measured: cases with a row missing, or with a status that is to be retried, or measured by
    our kernels under other tuned tiles than today's."""
    tasks = []
    for repeat in range(repeats):
        for case in plan.cases:
            rows = [record.get((case.case_id, p, c, repeat)) for p, c in plan.row_keys]
            stale = {r.get("tuned") for r in rows if r} != {tuned} and impl_of(case).tuned
            if stale or any(r is None or r["status"] in retry for r in rows):
                tasks.append((repeat, case))
    return tasks


def comparisons(tasks: Iterable[Task]) -> list[list[Task]]:
    """Tasks of one repeat that differ only in how they train, in the sweep's order."""
    found: dict[tuple[int, tuple[object, ...]], list[Task]] = {}
    for repeat, case in tasks:
        found.setdefault((repeat, case.alike), []).append((repeat, case))
    return list(found.values())


def baseline_of(cases: Sequence[Case]) -> Case | None:
    """What the cases of a comparison are compared with: the plainest Full-FT, else the first of them; None where there
    are not two."""
    full = sorted((c for c in cases if c.method == BASELINE), key=lambda c: c.plainness)
    return next(iter([*full, *cases]), None) if len(cases) > 1 else None


def exit_status(plan: Plan, record: Record, repeats: int, strict: bool) -> int:
    """0 where every row of the plan is measured or unsupported, else 1. Noisy rows count only under --strict."""
    for repeat in range(repeats):
        for case in plan.cases:
            for p, c in plan.row_keys:
                row = record.get((case.case_id, p, c, repeat))
                if row is None or row["status"] not in (Status.ok, Status.unsupported):
                    return 1
                if strict and row["noisy"]:
                    return 1
    return 0


def results_folder(results: Path, sweep: Path, before: str = "") -> Path:
    """The folder in `results`, by default results/<key>, for what is measured of a sweep's file: its stem, with
    `before` in front. Raises UserError for a stem that would leave `results`, or that means something else there."""
    stem = sweep.stem
    taken = stem.casefold() in RESERVED or stem.casefold().startswith(COMPARED)  # some disks know no case
    if taken or stem[:1] in ("", ".") or not stem.isprintable() or len(os.fsencode(stem)) > LONGEST:
        valid = f"not {', '.join(RESERVED)} or {COMPARED}..., at most {LONGEST} bytes, and no dot in front"
        raise UserError(
            f"sweep {short(str(sweep), 200)}: its stem cannot name a folder in {results}. Pass --out, or rename the"
            f" file: {valid}."
        )
    return results / (before + stem)


def check_size(plan: Plan, repeats: int) -> None:
    """Raises UserError for more rows than anybody waits for."""
    each = len(plan.row_keys)
    rows = len(plan.cases) * each * repeats
    if rows > MOST_ROWS:
        raise UserError(
            f"sweep {plan.sweep}, --repeat {repeats}: {rows:,} rows ({len(plan.cases):,} cases of {each} rows,"
            f" {repeats:,} times). At most {MOST_ROWS:,}; narrow it with --where or a smaller --repeat."
        )
