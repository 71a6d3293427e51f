"""The files of a run on several GPUs: what was submitted, what each shard measures, and where its attempts write.

    cluster.json             each submission, its shards and their jobs
    jobs/                    submitit's files; plan-1.json: what submission 1 measures; 003.json: what of it shard 3
    shards/003, shards/003.2 the first and the second attempt at shard 3, each a results folder of its own
    environment.json         what the first attempt measured under, and all others must too

Nobody but one attempt ever writes into its folder, and every other file is written once or replaced as a whole by the
process that attends to the folder. So nothing here needs a lock that a network file system would have to keep.
"""

import json
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.case.case import read_case
from bench.errors import UserError, short
from bench.files import look_anew, replace_file
from bench.reading import Count, Object, Plain, Shape, Text, read_object, shape_of
from bench.record.read import END, ROWS
from bench.runner.plan import Task
from bench.sweeps.expand import Plan
from bench.timing.settings import MeasureSettings

CLUSTER, JOBS, SHARDS, ENVIRONMENT = "cluster.json", "jobs", "shards", "environment.json"

_PLAN = shape_of(
    {**dict.fromkeys(("sweep", "path", "text", "description", "model"), Text), "settings": dict[Text, Plain],
     **dict.fromkeys(("passes", "clocks", "words"), list[Text]), "cases": list[Object]},
    ("sweep", "path", "text", "description", "settings", "passes", "clocks", "words", "cases"),
)  # fmt: skip
_SHARD = shape_of(
    {"plan": Text, "gpu": Text, "threads": Count, "quiet_s": Count, "command": Text, "again": Text,
     "repeats": list[Count], "case_ids": list[Text]},
    ("plan", "gpu", "command", "again", "repeats", "case_ids"),
)  # fmt: skip
_END = shape_of({"status": Count, "detail": Text}, ("status",))


@dataclass(frozen=True)
class Assignment:
    """What the jobs of one shard measure."""

    plan: Plan  # of the comparisons that the tasks belong to
    tasks: list[Task]
    gpu: str  # as --gpu names it
    threads: int | None
    quiet_s: int | None
    command: str  # of the person who submitted it
    again: str  # the command that goes on


@dataclass(frozen=True)
class Layout:
    """A results folder that several jobs measure into."""

    folder: Path

    @property
    def jobs(self) -> Path:
        return self.folder / JOBS

    def attempts(self, shard: int) -> list[Path]:
        """The folders of the attempts at a shard that were begun, in their order."""
        look_anew(self.folder / SHARDS)
        found = list(self._places(shard, stop=True))
        for path in found:
            look_anew(path)
        return found

    def claim(self, shard: int) -> Path:
        """Makes the folder of the next attempt, which is then this process's alone. mkdir is atomic, also over NFS."""
        for path in self._places(shard):
            try:
                path.mkdir(parents=True)
            except FileExistsError:
                continue
            return path
        raise AssertionError

    def superseded(self, shard: int, attempt: Path) -> bool:
        """Whether a later attempt has begun, or the folder has been set aside, so that this one must not write any
        more."""
        return self.attempts(shard)[-1:] != [attempt]

    def _places(self, shard: int, stop: bool = False) -> Iterator[Path]:
        for number in count(1):
            path = self.folder / SHARDS / (f"{shard:03}" if number == 1 else f"{shard:03}.{number}")
            if stop and not path.is_dir():
                return
            yield path

    @property
    def begun(self) -> bool:
        """Whether any attempt has, and so sees this folder."""
        return any((self.folder / SHARDS).glob("*"))

    def records(self) -> list[Path]:
        """All attempts of all shards that have measured something: one that was cut off early may have left an empty
        file, or a torn line."""
        found = sorted((self.folder / SHARDS).glob("*")) if (self.folder / SHARDS).is_dir() else []
        return [path for path in found if (path / ROWS).is_file() and _has_a_line(path / ROWS)]

    def write_plan(self, number: int, plan: Plan) -> str:
        """Writes what a submission measures; the file's name."""
        name = f"plan-{number}.json"
        told: Object = {
            "sweep": plan.sweep, "path": str(plan.path), "text": plan.text, "description": plan.description,
            "passes": plan.passes, "clocks": plan.clocks, "settings": plan.settings.model_dump(),
            "words": plan.words, "model": plan.model, "cases": [case.axes() for case in plan.cases],
        }  # fmt: skip
        self._write(self.jobs / name, told)
        return name

    def read_plan(self, name: str) -> Plan:
        """The plan of a submission. Raises UserError for a damaged one."""
        path = self.jobs / Path(name).name
        told = read_object(path, _PLAN)
        try:
            settings = MeasureSettings(**told["settings"])
        except ValidationError as e:
            raise UserError(f"{path}: settings: {short(str(e), 200)}") from None
        cases = tuple(read_case(case) for case in told["cases"])
        return Plan(
            told["sweep"], Path(told["path"]), told["text"], told["description"], cases, tuple(told["passes"]),
            tuple(told["clocks"]), settings, tuple(told["words"]), told.get("model"),
        )  # fmt: skip

    def write_assignment(self, shard: int, plan: str, tasks: Sequence[Task], **more: Any) -> None:
        """Writes what a shard measures. more: gpu, threads, quiet_s, command, again."""
        told = {"plan": plan, "repeats": [r for r, _ in tasks], "case_ids": [c.case_id for _, c in tasks], **more}
        self._write(self.jobs / f"{shard:03}.json", told)

    def read_assignment(self, shard: int) -> Assignment:
        """What a shard measures. Raises UserError for damaged files."""
        path, told = self._told(shard)
        plan = self.read_plan(told["plan"])
        cases = {case.case_id: case for case in plan.cases}
        if len(told["repeats"]) != len(told["case_ids"]) or set(told["case_ids"]) - set(cases):
            raise UserError(f"{path}: its cases are not those of {told['plan']}. Copy both again.")
        tasks = [(repeat, cases[id_]) for repeat, id_ in zip(told["repeats"], told["case_ids"], strict=True)]
        alike = {case.alike for _, case in tasks}
        part = replace(plan, cases=tuple(c for c in plan.cases if c.alike in alike))
        return Assignment(
            part, tasks, told["gpu"], told.get("threads"), told.get("quiet_s"), told["command"], told["again"]
        )

    def read_tasks(self, shard: int) -> list[tuple[int, str]]:
        """The repeat and the case_id of what a shard measures, without its plan, which is large. Raises UserError."""
        _, told = self._told(shard)
        return list(zip(told["repeats"], told["case_ids"], strict=False))

    def _told(self, shard: int) -> tuple[Path, Object]:
        path = self.jobs / f"{shard:03}.json"
        return path, read_object(path, _SHARD)

    def write_end(self, attempt: Path, status: int, detail: str = "") -> None:
        self._write(attempt / END, {"status": status, "detail": detail})

    def read_end(self, attempt: Path) -> tuple[int, str] | None:
        """The exit status and the last word of an attempt; None where it was cut off without one."""
        if not (attempt / END).is_file():
            return None
        told = read_object(attempt / END, _END)
        return told["status"], told.get("detail") or ""

    def agree(self, environment: Object, keys: Sequence[str], node: str) -> str | None:
        """Makes the environment that of the folder where it has none yet. Where it has another one: in what they
        differ, in a sentence."""
        path = self.folder / ENVIRONMENT
        draft = path.with_name(f".{ENVIRONMENT}-{secrets.token_hex(4)}")
        self._write(draft, {**{k: environment.get(k) for k in keys}, "node": node})
        try:
            os.link(draft, path)  # as one step, also over NFS; fails where the file is there
        except FileExistsError:
            first = read_object(path, _ENVIRONMENT)
        else:
            return None
        finally:
            draft.unlink()
        differ = [k for k in keys if first.get(k) != environment.get(k)]
        told = ", ".join(f"{k} {environment.get(k)} here, {first.get(k)} there" for k in differ)
        return f"node {node} differs from {first.get('node')}, which measured first: {told}" if differ else None

    @staticmethod
    def _write(path: Path, told: Object) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(told) + "\n")


def _has_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        return file.readline().endswith(b"\n")


_ENVIRONMENT: Shape = shape_of({"node": Text})
