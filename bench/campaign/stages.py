"""The stages of a campaign: what each runs, on what, and how long it may take."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.devices import Device
from bench.errors import UserError
from bench.record.environment import ROOT, version
from bench.sweeps.file import sweep_names, sweep_path

# In order of worth, with seconds each: 18 minutes in all. Each sweep's first child measures the board's ceilings too.
BUDGETS = {
    "gpu-tests": 75, "precompile": 60, "tune": 110, "table1": 290, "peers": 260, "lengths": 110, "table2": 135,
    "report": 40,
}  # fmt: skip
OTHER_SWEEP = 240
REPORT = "report"


@dataclass(frozen=True)
class Stage:
    """One step: a command that goes on where it stopped, or the reason why it is not for this machine."""

    name: str
    budget_s: float
    command: tuple[str, ...]
    skip: str | None = None
    folder: Path | None = None  # of a sweep: its record tells what is left, so it is asked again even if done
    before_sweeps: bool = False  # of no use, or worse, once a sweep has begun: new tables set its record aside

    @property
    def is_sweep(self) -> bool:
        return self.folder is not None


def make_stages(names: tuple[str, ...], device: Device, out: Path) -> list[Stage]:
    """The stages of these names in their order; all of BUDGETS without names. The report comes last and is none of
    them. Any sweep is one. Raises UserError on another name."""
    chosen = names or tuple(BUDGETS)
    fixed = (*_FIXED, REPORT)
    sweeps = [n for n in chosen if n not in fixed]
    for name in sweeps:
        try:
            sweep_path(name)
        except UserError:
            valid = ", ".join((*fixed, *sweep_names()))
            raise UserError(f"--stages: {name!r} is no stage; valid are: {valid}, or a sweep file") from None
    return [_FIXED[n](device, out, sweeps) if n in _FIXED else _sweep(n, device, out) for n in chosen if n != REPORT]


def report_stage(stages: list[Stage]) -> Stage:
    """Draws the folders of all sweeps that have been measured by now, in part or whole."""
    folders = [s.folder for s in stages if s.folder and (s.folder / "run.json").is_file()]
    skip = None if folders else "no sweep has been measured"
    return Stage(REPORT, BUDGETS[REPORT], _python("plots", *map(str, folders)), skip)


def _sweep(name: str, device: Device, out: Path) -> Stage:
    folder = out / sweep_path(name).stem
    command = _python("bench", "run", name, "--gpu", device.key, "--out", str(folder))
    return Stage(name, BUDGETS.get(name, OTHER_SWEEP), command, folder=folder)


def _gpu_tests(device: Device, out: Path, sweeps: list[str]) -> Stage:
    files = [p for p in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in p.read_text(encoding="utf-8")]
    command = _python("pytest", "-m", "gpu", "--benchmark-skip", "-q", "--rootdir", str(ROOT), *map(str, files))
    return Stage("gpu-tests", BUDGETS["gpu-tests"], command, _missing(device, "pytest", "its tests need one"))


def _precompile(device: Device, out: Path, sweeps: list[str]) -> Stage:
    command = _python("bench.commands.precompile", *sweeps)
    skip = _missing(device, "triton", "Triton compiles for one")
    skip = skip or (None if sweeps else "no sweep is asked for")
    return Stage("precompile", BUDGETS["precompile"], command, skip, before_sweeps=True)


def _tune(device: Device, out: Path, sweeps: list[str]) -> Stage:
    command = _python("kernels.tune", "--write", "--record", str(out / "tune.jsonl"))
    skip = _missing(device, "triton", "tiles are timed on one")
    return Stage("tune", BUDGETS["tune"], command, skip, before_sweeps=True)


_FIXED: dict[str, Callable[[Device, Path, list[str]], Stage]] = {
    "gpu-tests": _gpu_tests, "precompile": _precompile, "tune": _tune
}  # fmt: skip


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *arguments)


def _missing(device: Device, package: str, why: str) -> str | None:
    if device.is_cpu:
        return f"no NVIDIA GPU here: {why}"
    return None if version(package) else f"{package} is not installed"
