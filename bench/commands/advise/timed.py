"""What `advise` measures, by `bench run` in a process of its own, and reads from the record."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.case import Case
from bench.case.clocks import clocks_of
from bench.case.schema import BASELINE, Status
from bench.commands.advise.request import SWEEP, Asked
from bench.commands.advise.table import GIB, Found, name_of
from bench.devices import Device
from bench.methods.registry import unsupported
from bench.record.environment import ROOT
from bench.record.ratios import ratio_over, repeats_of
from bench.record.read import read_kept_rows, read_run, read_samples
from bench.record.shortlist import PEFT, Option, Over
from bench.record.stats import Estimate, generator, measured
from bench.runner.signals import run_command
from bench.sweeps.expand import Plan
from bench.terminal import duration, say

FIRST = {"full": ("eager",), "lora": (*PEFT, "triton"), "paca": ("triton",)}  # impls that tell the most
FIRST_ON_CPU = {"full": ("eager",), "lora": (*PEFT, "eager"), "paca": ("eager",)}


def stages(plan: Plan, device: Device) -> list[list[Case]]:
    """The cases that can run here, in the order in which they are measured."""
    can = [c for c in plan.cases if unsupported(c, "cpu" if device.is_cpu else "cuda") is None]
    first = FIRST_ON_CPU if device.is_cpu else FIRST
    early = [c for c in can if c.impl in first.get(c.method, ())]
    return [stage for stage in (early, [c for c in can if c not in early]) if stage]


def measure(asked: Asked, cases: Sequence[Case], folder: Path, left_s: float, fresh: bool = False) -> bool:
    """Measures what of the cases is not in the record; whether that came to an end in time. Raises KeyboardInterrupt,
    and RuntimeError where the run could not begin."""
    ids = ",".join(c.case_id for c in cases)
    say(f"{len(cases)} ways of training, at most {duration(left_s)}: {', '.join(map(name_of, cases))}")
    command = [sys.executable, "-m", "bench", "run", SWEEP, *asked.model.options(), "--gpu", asked.gpu]
    command += ["--out", str(folder), "--where", f"case_id={ids}", *["--fresh"] * fresh]
    status = run_command(command, ROOT, seconds=left_s, stdout=subprocess.DEVNULL)
    if status == 2:
        raise RuntimeError("the measurement could not begin; the line above says why")
    return status is not None


def read_found(folder: Path, plan: Plan, tried: Callable[[Case], float | None] = lambda _: None) -> Found:
    """What the record holds of a plan. tried: the peak of a case in bytes as a try found it, where a row has none."""
    rows, _ = read_kept_rows(folder) if read_run(folder) else ([], None)
    mine = {c.case_id: c for c in plan.cases}
    rows = [r for r in {(r["case_id"], r["pass"], r["clock"], r["repeat"]): r for r in rows}.values()]
    rows = [r for r in rows if r["case_id"] in mine]
    repeats = repeats_of(rows, read_samples(folder)[0] if rows else [])
    clock = clocks_of(plan.clocks[0])[0]
    base = next((c for c in plan.cases if c.method == BASELINE and (c.case_id, "step", clock) in repeats), None)
    pass_ = "step" if base or not any(key[1] == "forward-backward" for key in repeats) else "forward-backward"

    def over(case: Case, other: Case) -> Estimate | None:
        ours, theirs = (repeats.get((c.case_id, pass_, clock)) for c in (case, other))
        return ratio_over(ours, theirs, pass_, clock) if ours and theirs else None

    peaks = {r["case_id"]: r["peak_mib"] for r in rows if r["peak_mib"]}
    options = []
    for case in plan.cases:
        if found := repeats.get((case.case_id, pass_, clock)):
            ms = measured(found, generator(case.case_id, pass_, clock))[0].estimate
            mib, bytes_ = peaks.get(case.case_id), tried(case)
            gib = mib / 1024 if mib else None if bytes_ is None else bytes_ / GIB
            options.append(Option(case, name_of(case), ms, _ratio(case, base, over), gib))
    timed = {o.case.case_id for o in options}
    states = {r["case_id"]: r["status"] for r in rows}
    lost = [(c, _why(states.get(c.case_id))) for c in plan.cases if c.case_id not in timed]
    return Found(options, over, [(c, why) for c, why in lost if why != Status.unsupported], pass_)


def _ratio(case: Case, base: Case | None, over: Over) -> Estimate | None:
    return None if base is None or case == base else over(case, base)


def _why(status: str | None) -> str:
    return "not measured: the time was over" if status in (None, "") else str(status)
