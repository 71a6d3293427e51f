"""python -m bench campaign: stages one after the other, each within its time, until the piece or the work ends."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from bench.campaign.record import DONE, FAILED, OPEN, PARTIAL, SKIPPED, Campaign, open_campaign
from bench.campaign.stages import REPORT, Stage, make_stages, report_stage
from bench.devices import choose, gpus
from bench.errors import UserError
from bench.record.environment import ROOT, command_line
from bench.runner.progress import duration
from bench.runner.signals import end_with_parent, terminate_as_interrupt

MORE = 3  # exit status: the piece is over, the same command goes on

Run = Callable[[Stage, float, float], int | None]  # (stage, seconds, grace) -> exit status, None where time ended it


def campaign(gpu: str, budget: str, piece: str, stages: tuple[str, ...], out: Path | None, fresh: bool) -> int:
    """Runs the stages that are still open, in order of worth; prints the results folder on standard output.

    budget: time for all pieces, piece: time for this one ('18m', '540s', '540'). Returns the exit status: 0 all stages
    are done or not for this machine; 1 one failed, or the budget ended before all were done; 3 this piece ended before;
    128 + the signal that interrupted it. Raises UserError before anything is changed.
    """
    begun = monotonic()
    device = choose(gpu, gpus())
    whole, part = seconds_of("--budget", budget), seconds_of("--piece", piece)
    folder = out or Path("results") / device.key
    planned = make_stages(stages, device, folder)
    record = open_campaign(folder, device, fresh)
    _say(f"campaign on {device.name} into {folder}: {', '.join(s.name for s in planned)}")
    if device.is_cpu:
        _say("CPU times are no GPU times: this rehearses a campaign.")
    timed = Pieces(record, whole, begun + part, grace_of(part), _run, monotonic)
    with terminate_as_interrupt() as came:
        try:
            timed.go_through(planned)
            if not stages or REPORT in stages:
                timed.report(planned)
        except KeyboardInterrupt:
            _say(f"interrupted; what is finished is on disk. To go on: {command_line()}")
            return 128 + (came[0] if came else signal.SIGINT)
        except OSError as e:
            raise UserError(f"{e.filename or folder}: {e.strerror}; finished stages keep their results") from None
    print(folder)
    return timed.close(planned)


def grace_of(piece_s: float) -> float:
    """Seconds in which a stage must be able to stop by itself, and below which none is begun."""
    return min(20.0, piece_s / 20)


class Pieces:
    """One piece of a campaign: what of it may still run, and for how long."""

    def __init__(
        self, record: Campaign, budget_s: float, deadline: float, grace: float, run: Run, clock: Callable[[], float]
    ) -> None:
        self._record, self._budget_s, self._deadline = record, budget_s, deadline
        self._grace, self._run, self._clock = grace, run, clock

    def go_through(self, stages: list[Stage]) -> None:
        """First every stage within its own budget; then, with what is left of the whole, those that were cut off."""
        for stage in stages:
            found = self._record.of(stage.name)
            begun = any(self._record.of(s.name).spent_s for s in stages if s.is_sweep)
            if stage.before_sweeps and begun and not stage.skip and found.status != DONE:
                self._record.note(stage.name, SKIPPED, "the sweeps have begun: it would change what they measure")
            elif stage.is_sweep or found.status in (OPEN, PARTIAL, SKIPPED):
                self._one(stage, stage.budget_s - found.spent_s)
        for stage in stages:
            if self._record.of(stage.name).status == PARTIAL and not stage.before_sweeps:
                self._one(stage, float("inf"))

    def report(self, stages: list[Stage]) -> None:
        """Draws what there is, however often; its time counts like any other's."""
        self._record.note(REPORT, OPEN, "")  # whatever it drew before, more may have been measured since
        self._one(report_stage(stages), float("inf"))

    def _one(self, stage: Stage, own_s: float) -> None:
        if stage.skip:
            self._record.note(stage.name, SKIPPED, stage.skip)
            return
        left = min(own_s, self._budget_s - self._record.spent_s, self._of_piece())
        if left < self._grace:
            return
        _say(f"== {stage.name}: at most {duration(left)}")
        self._record.note(stage.name, PARTIAL, "begun, and ended without a word")
        started = self._clock()
        try:
            status = self._run(stage, left, self._grace)
        except KeyboardInterrupt:
            self._record.note(stage.name, PARTIAL, "interrupted", self._clock() - started)
            raise
        self._record.note(stage.name, *_outcome(stage, status), self._clock() - started)

    def _of_piece(self) -> float:
        return self._deadline - self._clock() - self._grace

    def close(self, stages: list[Stage]) -> int:
        """Says what became of every stage; the exit status."""
        found = {s.name: self._record.of(s.name) for s in stages}
        if REPORT in self._record.stages:
            found[REPORT] = self._record.of(REPORT)
        for name, p in found.items():
            _say(f"  {name:<12}{p.status:<9}{duration(p.spent_s) if p.spent_s else '':>8}  {p.detail}".rstrip())
        unfinished = [n for n, p in found.items() if p.status in (PARTIAL, OPEN)]
        spent = self._budget_s - self._record.spent_s < self._grace
        if unfinished and not spent:
            _say(f"this piece is over; open: {', '.join(unfinished)}. To go on: {command_line()}")
            return MORE
        if unfinished:
            _say(f"the budget of {duration(self._budget_s)} is spent; open: {', '.join(unfinished)}. More: --budget")
        return int(bool(unfinished) or any(p.status == FAILED for p in found.values()))


def _outcome(stage: Stage, status: int | None) -> tuple[str, str]:
    if status is None:
        return PARTIAL, "its time was over"
    if status == 0:
        return DONE, ""
    if status == 1 and stage.is_sweep:
        return DONE, "some rows have a status other than ok or unsupported"
    return FAILED, f"exit status {status}"


def _run(stage: Stage, seconds: float, grace: float) -> int | None:
    """Runs a stage's command for at most so long; SIGTERM ends it as Ctrl-C would, SIGKILL if it does not heed."""
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])}
    # A session of its own: Ctrl-C reaches this process alone, which passes it on.
    process = subprocess.Popen(
        stage.command, stdout=sys.stderr.fileno(), env=env, start_new_session=True, preexec_fn=end_with_parent()
    )
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        _stop(process, grace)
        return None
    except KeyboardInterrupt:
        _stop(process, grace)
        raise


def _stop(process: subprocess.Popen[bytes], grace: float) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(grace)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # with whatever it left behind
    process.wait()


def seconds_of(flag: str, text: str) -> float:
    """'18m', '90s', '1h' or plain seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|)", text)
    value = float(found[1]) * {"s": 1, "": 1, "m": 60, "h": 3600}[found[2]] if found else 0.0
    if not value:
        raise UserError(f"{flag}: {text!r} is no duration; valid are: 540, 540s, 9m, 1h")
    return value


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
