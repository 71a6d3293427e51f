"""python -m bench campaign: everything worth measuring on a device, one ordinary command after the other.

The stages go by worth, so that whenever the time is over, what is missing is what matters least. Each of them goes on
where it was cut off; campaign.json in the results folder says which need not be started again.
"""

import io
import json
import signal
import sys
import tarfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Literal

from bench.again import to_go_on
from bench.devices import Device, choose, gpus
from bench.errors import UserError, did_you_mean
from bench.files import replace_file
from bench.folder import usable
from bench.process import terminate_as_interrupt
from bench.reading import Plain, Text, fields_of, number, read_object, shape_of
from bench.record.environment import IDENTITY, ROOT, provenance, tuned_hash, version
from bench.runner.plan import results_folder
from bench.runner.signals import run_command
from bench.sweeps.file import sweep_names, sweep_path
from bench.terminal import duration, print_path, say, seconds_of

STAGES = ("gpu-tests", "precompile", "table1", "peers", "lengths", "table2", "tune", "report")
MORE = 3  # exit status: the time is over, and the same command goes on
DONE, FAILED, SKIPPED, OPEN = "done", "failed", "skipped", "open"

_STAGE: Any = fields_of(
    {"status": Literal["done", "failed", "skipped", "open"], "exit": int, "seconds": number(0, 1e9), "detail": Text},
    ("status", "seconds", "detail"),
)
_RECORD = shape_of({"environment": dict[Text, Plain], "stages": dict[Text, _STAGE]}, ("environment", "stages"))


@dataclass(frozen=True)
class Stage:
    """One command, or the reason why it is not for this machine."""

    name: str
    command: tuple[str, ...]
    skip: str | None = None
    is_sweep: bool = False


def campaign(
    gpu: str, time: str | None, stages: tuple[str, ...], out: Path | None, fresh: bool, save: Path | None
) -> int:
    """Runs the stages that are not done yet; prints the results folder on standard output.

    time: after which the stage at hand is interrupted, '30m'; None: until all is done. save: a folder that gets
    <key>.tar.gz of the results, after each stage and every 40 s. Returns the exit status: 0 all is done or not for this
    machine; 1 a stage failed; 3 the time is over, and the same command goes on; 128 + the signal that interrupted it.
    Raises UserError before anything is changed.
    """
    deadline = None if time is None else monotonic() + seconds_of("--time", time)
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
    with terminate_as_interrupt() as came:
        try:
            for stage in planned:
                left = None if deadline is None else deadline - monotonic()
                if log.stages.get(stage.name, {}).get("exit") != 0 and (left is None or left > 0):
                    _one(stage, log, left)
            if not stages or "report" in stages:
                _one(_report(folder), log, None)  # whatever was drawn before, more may have been measured since
        except KeyboardInterrupt:
            say(f"interrupted; what is finished is on disk. To go on: {to_go_on()}")
            return 128 + (came[0] if came else signal.SIGINT)
        except OSError as e:
            raise UserError(f"{e.filename or folder}: {e.strerror}; finished stages keep their results.") from None
    print_path(folder)
    return _close(planned, log)


def _one(stage: Stage, log: "Log", seconds: float | None) -> None:
    if stage.skip:
        log.note(stage.name, SKIPPED, None, stage.skip)
        return
    say(f"== {stage.name}" + ("" if seconds is None else f": at most {duration(seconds)}"))
    log.note(stage.name, OPEN, None, "begun")
    started = monotonic()
    code = run_command(stage.command, ROOT, seconds=seconds, meanwhile=log.pack, stdout=sys.stderr.fileno())
    if code is None:
        status, detail = OPEN, "its time was over"
    elif code == 1 and stage.is_sweep:
        status, detail = DONE, "some rows have a status other than ok or unsupported"
    else:
        status, detail = (FAILED, f"exit status {code}") if code else (DONE, "")
    log.note(stage.name, status, code, detail, monotonic() - started)


def _close(planned: list[Stage], log: "Log") -> int:
    """Says what became of every stage; the exit status."""
    names = dict.fromkeys([s.name for s in planned] + [n for n in log.stages if n == "report"])
    found = {name: log.stages.get(name, {"status": OPEN, "detail": "not begun", "seconds": 0}) for name in names}
    for name, s in found.items():
        say(f"  {name:<12} {s['status']:<9}{duration(s['seconds']) if s['seconds'] else '':>8}  {s['detail']}".rstrip())
    if unfinished := [name for name, s in found.items() if s["status"] == OPEN]:
        say(f"the time is over; open: {', '.join(unfinished)}. To go on: {to_go_on()}")
        return MORE
    return int(any(s["status"] == FAILED for s in found.values()))


class Log:
    """campaign.json: what became of each stage. It is forgotten where device, sources or versions are others."""

    def __init__(self, folder: Path, device: Device, fresh: bool, save: Path | None) -> None:
        self._folder, self._save, self._key = folder, save, device.key
        self._path = folder / "campaign.json"
        found = provenance(device)
        self._environment = {name: found[name] for name in IDENTITY} | {"tuned": tuned_hash(device)}
        self.stages: dict[str, dict[str, Any]] = {}
        if self._path.exists() and not fresh:
            before = read_object(self._path, _RECORD, "It is not the record of a campaign. Remove it, or pass --fresh.")
            self.stages = before["stages"] if before["environment"] == self._environment else {}

    def note(self, name: str, status: str, code: int | None, detail: str, seconds: float = 0.0) -> None:
        """What became of a stage; on disk when this returns."""
        seconds = round(self.stages.get(name, {}).get("seconds", 0.0) + seconds, 3)
        self.stages[name] = {"status": status, "exit": code, "seconds": seconds, "detail": detail}
        self._folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"environment": self._environment, "stages": self.stages}, indent=1)
        replace_file(self._path, text + "\n")
        self.pack()

    def pack(self) -> None:
        """Puts the results into the folder of --save, as they are: a last line may be torn. A failure is said."""
        if self._save is None:
            return
        packed = io.BytesIO()
        try:
            with tarfile.open(fileobj=packed, mode="w:gz") as tar:
                for path in sorted(p for p in self._folder.rglob("*") if p.is_file()):
                    with suppress(FileNotFoundError):  # a draft that was renamed meanwhile
                        tar.add(path, path.relative_to(self._folder.parent))
            self._save.mkdir(parents=True, exist_ok=True)
            replace_file(self._save / f"{self._key}.tar.gz", packed.getvalue())
        except OSError as e:
            say(f"--save {self._save}: not saved this time: {e.strerror or e}")


def make_stages(names: tuple[str, ...], device: Device, out: Path) -> list[Stage]:
    """The stages of these names in their order, all of STAGES without names. Any sweep is one; the report, which comes
    last whatever else happens, is none of them. Raises UserError on another name."""
    names = names or STAGES
    sweeps = [n for n in names if n not in ("gpu-tests", "precompile", "tune", "report")]
    for name in sweeps:
        try:
            sweep_path(name)
        except UserError:
            valid = list(dict.fromkeys((*STAGES, *sweep_names())))
            hint = did_you_mean(name, valid)
            raise UserError(
                f"--stages: no stage {name!r}.{hint} Stages: {', '.join(valid)}, or a sweep file."
            ) from None
    into: dict[Path, str] = {}
    for name in dict.fromkeys(sweeps):
        other = into.setdefault(results_folder(out, sweep_path(name)), name)
        if other != name:
            raise UserError(f"--stages: {other} and {name} would measure into one folder. Rename one of the files.")
    return [_stage(name, sweeps, device, out) for name in dict.fromkeys(names) if name != "report"]


def _stage(name: str, sweeps: list[str], device: Device, out: Path) -> Stage:
    if name == "gpu-tests":
        files = [p for p in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in p.read_text(encoding="utf-8")]
        options = ("-m", "gpu", "--benchmark-skip", "-q", "--rootdir", str(ROOT))
        return Stage(name, _python("pytest", *options, *map(str, files)), _missing(device, "pytest"))
    if name == "precompile":
        skip = _missing(device, "triton") or (None if sweeps else "no sweep is asked for")
        return Stage(name, _python("bench", "precompile", *sweeps), skip)
    if name == "tune":  # the timings alone: new tiles would open the rows of our kernels again (see tuned_hash)
        return Stage(name, _python("kernels.tune", "--record", str(out / "tune.json")), _missing(device, "triton"))
    folder = results_folder(out, sweep_path(name))
    return Stage(name, _python("bench", "run", name, "--gpu", device.key, "--out", str(folder)), is_sweep=True)


def _report(out: Path) -> Stage:
    folders = sorted(path.parent for path in out.glob("*/run.json"))
    skip = None if folders else "no sweep has been measured"
    return Stage("report", _python("plots", *map(str, folders)), skip)


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *arguments)


def _missing(device: Device, package: str) -> str | None:
    if device.is_cpu:
        return "it needs an NVIDIA GPU"
    return None if version(package) else f"{package} is not installed"
