"""The stages of a campaign: what each of them runs, in the order of their worth."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.devices import Device
from bench.errors import UserError, did_you_mean
from bench.record.environment import ROOT, version
from bench.runner.plan import results_folder
from bench.sweeps.file import sweep_names, sweep_path

TUNE_S = 75  # of the tuner's own --time

# For tests of single kernels a process each is enough; beyond 12 they wait for the GPU rather than for the compiler.
TEST_PROCESSES = 12

# Clocks on a real GPU in a few tests: what a replay computes, that a bad capture is told, that the clocks agree on one
# layer, and that NVML answers. The others take longer than they are worth in a campaign.
CLOCK_TESTS = "replay_computes and bf16 or synchronizes or state_of_this_gpu or agree and full and 1024 and cold"


@dataclass(frozen=True)
class Part:
    """A sweep as a campaign measures it: those of its cases that are worth their time."""

    sweep: str
    where: tuple[str, ...] = ()  # conditions of --where, on a GPU; the small sweep of a CPU is measured whole
    tuned: bool = False  # under the tiles that stage tune has written


# Four projections beside the squares: the widest and the narrowest product of GPT2-XL and of LLaMA2-7B. torch.compile
# takes minutes a layer, so its impls are left to `bench run peers`.
_LAYERS = "square-1024,square-2048,square-4096,attn.c_attn,mlp.c_proj,mlp.gate_proj,mlp.down_proj"
PARTS = {
    "table1": Part("table1"),
    "table1-tuned": Part("table1", ("impl=triton",), tuned=True),
    "table2": Part("table2", ("model=llama2-7b", "trainable_layers=all,upper-1/2", "impl=eager,triton")),
    "peers": Part(
        "peers",
        (
            f"layer={_LAYERS}",
            "model=,gpt2-xl,llama2-7b",
            "impl=eager,peft,peft-fp32,addmm,bordered,peft-triton,official,triton",
            "compile=",
        ),
    ),
    "lengths": Part("lengths", ("model=gpt2-medium", "seq=128,256,768")),  # table1 has 512 and 1024
}
STAGES = ("gpu-tests", "precompile", "table1", "tune", "table1-tuned", "table2", "peers", "lengths", "report")
NO_SWEEPS = ("gpu-tests", "precompile", "tune", "report")


@dataclass(frozen=True)
class Stage:
    """Commands that run one after the other until one fails, or the reason why they are not for this machine."""

    name: str
    commands: tuple[tuple[str, ...], ...] = ()
    skip: str | None = None
    folder: Path | None = None  # of a sweep: where its rows go
    environment: Mapping[str, str] = field(default_factory=dict)
    needs: Path | None = None  # a folder in which an earlier stage must have left a JSON file
    failures: Path | None = None  # of tests: a file that names those that failed


def part_of(name: str) -> Part:
    """What a campaign measures under a name: a stage's part of its sweep, or all of another sweep."""
    return PARTS.get(name) or Part(name)


def make_stages(names: tuple[str, ...], device: Device, out: Path) -> list[Stage]:
    """The stages of these names in their order, all of STAGES without names. Any sweep is one; the report, which comes
    last whatever else happens, is none of them. Raises UserError on another name."""
    names = names or STAGES
    sweeps = [n for n in names if n not in NO_SWEEPS]
    for name in sweeps:
        try:
            sweep_path(part_of(name).sweep)
        except UserError:
            valid = list(dict.fromkeys((*STAGES, *sweep_names())))
            hint = did_you_mean(name, valid)
            raise UserError(
                f"--stages: no stage {name!r}.{hint} Stages: {', '.join(valid)}, or a sweep file."
            ) from None
    into: dict[Path, str] = {}
    for name in dict.fromkeys(sweeps):
        other = into.setdefault(folder_of(name, out), name)
        if other != name:
            raise UserError(f"--stages: {other} and {name} would measure into one folder. Rename one of the files.")
    return [_stage(name, sweeps, device, out) for name in dict.fromkeys(names) if name != "report"]


def folder_of(name: str, out: Path) -> Path:
    """Where a stage that is a sweep measures into."""
    return out / name if name in PARTS else results_folder(out, sweep_path(name))


def _stage(name: str, sweeps: list[str], device: Device, out: Path) -> Stage:
    tuned = out / "tuned"
    where_tuned = {"LORABENCH_TUNED": str(tuned.resolve())}
    if name == "gpu-tests":
        told = out / "gpu-tests.txt"
        failures = {"LORABENCH_FAILURES": str(told.resolve())}
        return Stage(name, _tests(), _missing(device, "pytest"), environment=failures, failures=told)
    if name == "precompile":
        skip = _missing(device, "triton") or (None if sweeps else "no sweep is asked for")
        return Stage(name, (_python("bench", "precompile", "--as-campaign", *sweeps),), skip)
    if name == "tune":  # into a folder of its own: table1's rows were measured without these tiles, and stay valid
        words = ("--write", "--record", str(out / "tune.json"), "--time", f"{TUNE_S}s")
        skip = _missing(device, "triton")
        return Stage(name, (_python("kernels.tune", *words),), skip, environment=where_tuned)
    part, folder = part_of(name), folder_of(name, out)
    conditions = [] if device.is_cpu else [word for condition in part.where for word in ("--where", condition)]
    command = _python("bench", "run", part.sweep, "--gpu", device.key, "--out", str(folder), *conditions)
    skip = _missing(device, "triton") if part.tuned else None
    return Stage(name, (command,), skip, folder, where_tuned if part.tuned else {}, tuned if part.tuned else None)


def _tests() -> tuple[tuple[str, ...], ...]:
    """Those of the kernels in parallel; then, alone on the GPU, a few of the clocks."""
    files = [p for p in sorted((ROOT / "tests" / "kernels").rglob("test_*.py")) if "mark.gpu" in p.read_text("utf-8")]
    options = ("-m", "gpu", "--benchmark-skip", "-q", "-p", "tests.failures_at_once", "--rootdir", str(ROOT))
    processes = min(TEST_PROCESSES, max(1, (os.cpu_count() or 2) - 1))
    parallel = ("-n", str(processes)) if version("pytest-xdist") else ()
    clocks = ROOT / "tests" / "timing" / "test_clocks_on_gpu.py"
    return (
        _python("pytest", *options, *parallel, *map(str, files)),
        _python("pytest", *options, "-k", CLOCK_TESTS, str(clocks)),
    )


def report(folders: list[Path]) -> Stage:
    """The stage that draws these folders."""
    return Stage("report", (_python("plots", *map(str, folders)),), None if folders else "no sweep has been measured")


def _python(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", module, *arguments)


def _missing(device: Device, package: str) -> str | None:
    if device.is_cpu:
        return "it needs an NVIDIA GPU"
    return None if version(package) else f"{package} is not installed"
