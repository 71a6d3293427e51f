"""python -m bench campaign: everything worth measuring on a device, one ordinary command after the other.

The stages go by worth, so that whenever the time is over, what is missing is what matters least, and tables are
complete column by column. Each stage goes on where it was cut off; campaign.json in the results folder says which need
not be started again.
"""

import signal
import sys
from pathlib import Path
from time import monotonic

from bench.again import to_go_on, to_go_on_with
from bench.commands.campaign.log import DONE, FAILED, OPEN, SKIPPED, Log
from bench.commands.campaign.stages import Stage, make_stages, report
from bench.devices import choose, gpus
from bench.errors import UserError
from bench.folder import usable
from bench.process import terminate_as_interrupt
from bench.record.environment import ROOT
from bench.runner.signals import run_command
from bench.terminal import duration, print_path, say, seconds_of

MORE = 3  # exit status: the time is over, and the same command goes on
REPORT_S = 20.0  # of --time, kept for drawing what the last stage has measured; at most a twentieth of it
MOST_NAMES = 10  # of tests that failed, in one line


def campaign(
    gpu: str, time: str | None, stages: tuple[str, ...], out: Path | None, fresh: bool, save: Path | None
) -> int:
    """Runs the stages that are not done yet; prints the results folder on standard output.

    time: after which the stage at hand is interrupted, '30m'; None: until all is done. save: a folder that gets
    <key>.tar.gz of the results, after each stage and every 40 s. Returns the exit status: 0 all is done or not for this
    machine; 1 a stage failed; 3 the time is over, and the same command goes on; 128 + the signal that interrupted it.
    Raises UserError before anything is changed.
    """
    seconds = None if time is None else seconds_of("--time", time)
    deadline = None if seconds is None else monotonic() + seconds - min(REPORT_S, seconds / 20)
    device = choose(gpu, gpus())
    folder = usable("--out", out or Path("results") / device.key)
    planned = make_stages(stages, device, folder)
    if save and ((save.exists() and not save.is_dir()) or save.resolve().is_relative_to(folder.resolve())):
        raise UserError(f"--save {save}: pass a folder outside of {folder}, which is what gets saved.")
    if save:
        usable("--save", save)
    log = Log(folder, device, fresh, save)
    say(f"campaign on {device.name} into {folder}: {', '.join(s.name for s in planned)}")
    if device.is_cpu:
        say("CPU times are no GPU times: this rehearses a campaign.")
    drawn: set[Path] = set()
    with terminate_as_interrupt() as came:
        try:
            for stage in planned:
                left = None if deadline is None else deadline - monotonic()
                if log.stages.get(stage.name, {}).get("exit") == 0 or (left is not None and left <= 0):
                    continue
                _one(stage, log, left)
                if stage.failures and log.stages[stage.name]["status"] == FAILED:
                    return _stopped(stage, planned, log)
                if stage.folder and (stage.folder / "run.json").exists():
                    _run(report([stage.folder]), log, None)
                    drawn.add(stage.folder)
            if not stages or "report" in stages:
                _report(folder, drawn, log)
        except KeyboardInterrupt:
            say(f"interrupted; what is finished is on disk. To go on: {to_go_on()}")
            return 128 + (came[0] if came else signal.SIGINT)
        except OSError as e:
            raise UserError(f"{e.filename or folder}: {e.strerror}; finished stages keep their results.") from None
    print_path(folder)
    return _close(planned, log)


def _one(stage: Stage, log: Log, seconds: float | None) -> None:
    skip = stage.skip
    if skip is None and stage.needs and not any(stage.needs.glob("*.json")):
        skip = f"there is nothing in {stage.needs}"
    if skip:
        log.note(stage.name, SKIPPED, None, skip)
        return
    say(f"== {stage.name}" + ("" if seconds is None else f": at most {duration(seconds)}"))
    log.note(stage.name, OPEN, None, "begun")
    if stage.failures:
        stage.failures.unlink(missing_ok=True)
    started = monotonic()
    code = _run(stage, log, seconds)
    if code is None:
        status, detail = OPEN, "its time was over"
    elif code == 1 and stage.folder:
        status, detail = DONE, "some rows have a status other than ok or unsupported"
    else:
        status, detail = (FAILED, f"exit status {code}") if code else (DONE, "")
    failures = _names(stage)
    if failures:
        shown = ", ".join(failures[:MOST_NAMES]) + ", ..." * (len(failures) > MOST_NAMES)
        detail = f"{detail}; {len(failures)} failed: {shown}"
    log.note(stage.name, status, code, detail, monotonic() - started)


def _run(stage: Stage, log: Log, seconds: float | None) -> int | None:
    """The exit status of the first command that fails, 0 where none does, None where the time was over."""
    end = None if seconds is None else monotonic() + seconds
    for command in stage.commands:
        left = None if end is None else max(0.0, end - monotonic())
        code = run_command(
            command, ROOT, seconds=left, meanwhile=log.pack, environment=stage.environment, stdout=sys.stderr.fileno()
        )
        if code != 0:
            return code
    return 0


def _names(stage: Stage) -> list[str]:
    """The tests that have failed so far."""
    if stage.failures is None or not stage.failures.exists():
        return []
    return list(dict.fromkeys(stage.failures.read_text(encoding="utf-8", errors="replace").splitlines()))


def _stopped(stage: Stage, planned: list[Stage], log: Log) -> int:
    """Says why nothing is measured after tests that failed; the exit status."""
    rest = [s.name for s in planned if s.name != stage.name and log.stages.get(s.name, {}).get("exit") != 0]
    say(f"{stage.name} failed, and times of what is wrong are worth nothing: {log.stages[stage.name]['detail']}")
    say(f"To go on without: {to_go_on_with([*rest, 'report'])}")
    return 1


def _report(folder: Path, drawn: set[Path], log: Log) -> None:
    """Draws what was measured before this campaign's stages drew theirs."""
    folders = sorted(path.parent for path in folder.glob("*/run.json"))
    if left := [f for f in folders if f not in drawn] or ([] if drawn else folders):
        _one(report(left), log, None)
    elif drawn:
        log.note("report", DONE, 0, "drawn after each stage")
    else:
        _one(report([]), log, None)


def _close(planned: list[Stage], log: Log) -> int:
    """Says what became of every stage; the exit status."""
    names = dict.fromkeys([s.name for s in planned] + [n for n in log.stages if n == "report"])
    found = {name: log.stages.get(name, {"status": OPEN, "detail": "not begun", "seconds": 0}) for name in names}
    for name, s in found.items():
        say(f"  {name:<12} {s['status']:<9}{duration(s['seconds']) if s['seconds'] else '':>8}  {s['detail']}".rstrip())
    if unfinished := [name for name, s in found.items() if s["status"] == OPEN]:
        say(f"the time is over; open: {', '.join(unfinished)}. To go on: {to_go_on()}")
        return MORE
    return int(any(s["status"] == FAILED for s in found.values()))
