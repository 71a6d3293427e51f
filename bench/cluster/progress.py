"""How far a shard is, from the rows that its attempts have on disk."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from bench.case.schema import Status
from bench.cluster.layout import Layout
from bench.errors import UserError
from bench.reading import open_plain
from bench.record.read import ROWS

GOOD = (Status.ok, Status.unsupported)


@dataclass
class ShardRows:
    """The rows of one shard, read on from where the last look ended. Damaged lines are left to whoever merges."""

    layout: Layout
    number: int
    tasks: list[tuple[int, str]]  # repeat and case_id
    keys: list[tuple[str, str]]  # the (pass, clock) of every row that a case leaves
    _read: dict[Path, int] = field(default_factory=dict)  # bytes
    _found: dict[tuple[int, str], dict[tuple[str, str], str]] = field(default_factory=dict)  # statuses

    def __post_init__(self) -> None:
        self._found = {task: {} for task in self.tasks}

    def look(self) -> None:
        for attempt in self.layout.attempts(self.number):
            path = attempt / ROWS
            try:
                with open_plain(path) as file:
                    file.seek(self._read.get(path, 0))
                    data = file.read()
            except (OSError, UserError):  # not there yet, or not to be seen yet
                continue
            whole = data[: data.rfind(b"\n") + 1]
            self._read[path] = self._read.get(path, 0) + len(whole)
            for line in whole.splitlines():
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            row = json.loads(line)
            task = self._found.get((row["repeat"], row["case_id"]))
            if task is not None:
                task[row["pass"], row["clock"]] = row["status"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return

    @property
    def done(self) -> int:
        """Tasks of which every row is there."""
        return sum(all(key in rows for key in self.keys) for rows in self._found.values())

    @property
    def failed(self) -> int:
        """Tasks with a row that is neither measured nor unsupported."""
        return sum(any(status not in GOOD for status in rows.values()) for rows in self._found.values())
