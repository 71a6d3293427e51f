"""What earlier runs have recorded of comparisons: how long a call took, and how long the whole on the wall."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.case import Case
from bench.case.case import read_case
from bench.case.clocks import CLOCKS
from bench.case.schema import Status
from bench.devices import Device
from bench.errors import UserError
from bench.record.read import Row, read_record, read_run
from bench.timing.settings import MeasureSettings


@dataclass
class Earlier:
    """A comparison as it was measured once; seconds since 1970 where nothing else is said."""

    run: tuple[str | None, int]  # run_id, and the repeat
    settings: MeasureSettings | None  # None where they are not known
    begun: float  # when the comparison before it had ended, or the first processes were started
    ended: float
    ms: dict[Case, dict[tuple[str, str], float]] = field(default_factory=dict)  # medians by (pass, clock)
    new: int = 0  # processes that were started for it
    goes_on: bool = False  # whether one of its processes had measured before

    @property
    def seconds(self) -> float:
        """On the wall, all cases together."""
        return self.ended - self.begun

    def keys(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Its passes, and the clocks that took samples."""
        found = dict.fromkeys(key for medians in self.ms.values() for key in medians)
        return (
            tuple(dict.fromkeys(p for p, _ in found)),
            tuple(dict.fromkeys(c for _, c in found if c in CLOCKS and CLOCKS[c].made_by)),
        )


def earlier(folders: Iterable[Path], device: Device) -> Iterator[Earlier]:
    """The comparisons in the results folders of earlier runs on such a device (of the same key), each time that one was
    measured. What cannot be read is passed over, for nothing but an estimate depends on it."""
    for folder in folders:
        try:
            run = read_run(folder)
            rows = read_record(folder)[0] if run.get("gpu_key") == device.key else []
        except (UserError, OSError):
            continue
        yield from _comparisons([row for row in rows if row["gpu"] in (None, run.get("gpu"))], run)


def _comparisons(rows: Iterable[Row], run: Mapping[str, Any]) -> Iterator[Earlier]:
    """A process measures one case at a time, and all of a comparison are on disk at once: so a comparison began when
    its processes had ended the one before. That holds in a record that was merged from several, too."""
    timed = [(ended, row) for row in rows if row["process"] and (ended := seconds_of(row["measured_at"])) is not None]
    last: dict[tuple[Any, ...], tuple[float, float | None]] = {}  # of a process: end of its case, and of the one before
    case_of: dict[tuple[Any, ...], str] = {}
    open_: dict[tuple[Any, ...], Earlier] = {}
    for ended, row in sorted(timed, key=lambda x: x[0]):
        case = read_case(row)
        started = seconds_of(row["process"].partition("-")[2])
        if case.case_id != row["case_id"] or started is None:
            continue
        process = (row["run_id"], row["process"])
        again = case_of.get(process) == case.case_id  # another row of the same case
        before = last[process][1] if again else last[process][0] if process in last else None
        last[process], case_of[process] = (ended, before), case.case_id
        begun = started if before is None else before
        what = (row["run_id"], row["repeat"], case.alike)
        found = open_.get(what)
        if found is None or begun >= found.ended:  # measured once more
            if found is not None:
                yield found
            found = open_[what] = Earlier((row["run_id"], row["repeat"]), _settings(run, ended), begun, ended)
        if not again:
            found.new += before is None
            if before is not None:
                found.begun = max(found.begun, begun) if found.goes_on else begun
                found.goes_on = True
            elif not found.goes_on:
                found.begun = min(found.begun, begun)
        found.ended = max(found.ended, ended)
        medians = found.ms.setdefault(case, {})
        if row["status"] == Status.ok and row["median_ms"]:
            medians[row["pass"], row["clock"]] = row["median_ms"]
    yield from open_.values()


def seconds_of(time: str | None) -> float | None:
    """A time as ISO 8601 has it, in seconds since 1970; None for what is none."""
    try:
        return datetime.fromisoformat(time or "").timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _settings(run: Mapping[str, Any], at: float) -> MeasureSettings | None:
    """Those of the invocation that was under way."""
    begun = [(seconds_of(i.get("started")), i.get("settings")) for i in run.get("invocations") or ()]
    found = [(s, given) for s, given in begun if s is not None and s <= at and given]
    if not found:
        return None
    given = max(found, key=lambda x: x[0])[1]
    try:
        return MeasureSettings(**{k: v for k, v in given.items() if k in MeasureSettings.model_fields})
    except ValidationError:
        return None
