"""The largest batch and length that fit: bisection, each try in a process of its own, what was tried kept on disk."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from typing import Any

from bench.case import Case
from bench.devices import Device, visible_index
from bench.files import append_json_lines
from bench.reading import Count, Flag, Number, Text, read_json_lines, shape_of
from bench.record.environment import ROOT
from bench.runner.signals import run_command
from bench.runner.worker_process import surroundings

TRIES = "tries.jsonl"
MOST_BATCH, MOST_SEQ = 4096, 2**20
GRAIN = 64  # tokens, to which the largest length is looked for
_TRY = shape_of(
    {"case_id": Text, "limit": Count, "fits": Flag, "peak": Number, "detail": Text}, ("case_id", "limit", "fits")
)


def sized(case: Case, axis: str, n: int) -> Case:
    """The case with another batch or seq."""
    values: dict[str, Any] = case.axes() | {axis: n}
    return Case(**values)


class OutOfTime(Exception):
    """There was no time for another try."""


class AtLeast(OutOfTime):
    """The same, within a bisection: the largest value so far that fits, 0 where none was found."""

    def __init__(self, value: int) -> None:
        super().__init__()
        self.value = value


@dataclass(frozen=True)
class Try:
    """One size in one process: whether a whole optimizer step fits into the limit, and its peak in bytes."""

    fits: bool
    peak: int | None
    detail: str = ""


def largest(fits: Callable[[int], bool], start: int, most: int, grain: int = 1) -> int:
    """The largest multiple of grain up to `most` that fits, where what fits also fits when smaller; 0 where none does.

    start: what is asked first. From there by doubling, then by halves. Raises AtLeast where fits raises OutOfTime.
    """
    low, high, most = 0, None, most // grain  # in grains: the largest that fits, the smallest that does not
    n = min(max(start // grain, 1), most)
    try:
        while low < n:
            if fits(n * grain):
                low = n
                n = min(2 * n, most) if high is None else (low + high) // 2
            else:
                high = n
                n = (low + high) // 2
    except OutOfTime:
        raise AtLeast(low * grain) from None
    return low * grain


def largest_of(case: Case, axis: str, fits: Callable[[Case], bool]) -> int:
    """The largest batch or seq at which the case fits, among what its model allows; 0 where none does. A length is a
    multiple of GRAIN, or of what GRAIN has in common with the case's own length. Raises AtLeast."""
    most, grain = MOST_BATCH, 1
    if axis == "seq":
        most, grain = min(case.shape.longest if case.shape else MOST_SEQ, MOST_SEQ), gcd(GRAIN, case.seq)
    return largest(lambda n: fits(sized(case, axis, n)), getattr(case, axis), most, grain)


class Tries:
    """Tries on one device with one limit of memory, each at most once: what a folder has is not tried again."""

    def __init__(self, folder: Path, device: Device, limit: int, left_s: Callable[[], float]) -> None:
        """limit: bytes. left_s: seconds that are left for all of them."""
        self._path, self._device, self._limit, self._left_s = folder / TRIES, device, limit, left_s
        known, _ = read_json_lines(self._path, _TRY)
        self._known = {
            line["case_id"]: Try(line["fits"], line.get("peak"), line.get("detail") or "")
            for line in known
            if line["limit"] == limit
        }

    def known(self, case: Case) -> Try | None:
        return self._known.get(case.case_id)

    def attempt(self, case: Case) -> Try:
        """Raises OutOfTime; RuntimeError where the case fails for another reason than memory."""
        if case.case_id not in self._known:
            found = self._run(case)
            line = {"case_id": case.case_id, **case.axes(), "limit": self._limit, "fits": found.fits}
            append_json_lines(self._path, [line | {"peak": found.peak, "detail": found.detail}])
            self._known[case.case_id] = found
        return self._known[case.case_id]

    def largest(self, case: Case, axis: str) -> int:
        """The largest value of an axis, batch or seq, at which the case fits. Raises AtLeast, and as attempt."""
        return largest_of(case, axis, lambda sized: self.attempt(sized).fits)

    def _run(self, case: Case) -> Try:
        left = self._left_s()
        if left <= 0:
            raise OutOfTime
        where = "cpu" if self._device.is_cpu else f"cuda:{visible_index(self._device)}"
        job = json.dumps({"case": case.axes(), "device": where, "limit": self._limit})
        out = self._path.with_name("try.json")
        out.unlink(missing_ok=True)
        log = self._path.parent / "logs" / "try.log"
        log.parent.mkdir(exist_ok=True)
        command = (sys.executable, "-m", "bench.commands.advise.attempt", job, str(out.absolute()))
        with open(log, "ab") as errors:
            status = run_command(
                command, ROOT, seconds=left, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors,
                environment=surroundings(),
            )  # fmt: skip
        if status is None:
            raise OutOfTime
        if status < 0:  # by the system, which was out of memory itself
            return Try(False, None, f"ended by signal {-status}")
        found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
        out.unlink(missing_ok=True)
        if status or not found:
            raise RuntimeError(found.get("detail") or f"exit status {status}; see {log}")
        return Try(found["fits"], found["peak"], found["detail"])
