"""What `advise` measures on the device that is here, by `bench run` in a process of its own, and reads from the
record."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import monotonic

import psutil

from bench.case import Case
from bench.case.clocks import clocks_of
from bench.case.schema import BASELINE, Status
from bench.commands.advise.largest import AtLeast, OutOfTime, Tries
from bench.commands.advise.request import SWEEP, Asked, Kinds
from bench.commands.advise.table import GIB, Found, Room, name_of, room_by_formula
from bench.devices import Device
from bench.errors import UserError
from bench.folder import usable
from bench.methods.registry import unsupported
from bench.predict.boards import boards
from bench.record.environment import ROOT
from bench.record.ratios import ratio_over, repeats_of
from bench.record.read import read_kept_rows, read_run, read_samples
from bench.record.shortlist import Option, Over
from bench.record.stats import Estimate, generator, measured
from bench.record.store import key_of
from bench.roofline.roofline import flops
from bench.runner.lock import only_run_on
from bench.runner.plan import results_folder
from bench.runner.signals import run_command
from bench.sweeps.expand import Plan
from bench.sweeps.of_model import ModelRequest, folder_name, model_plan
from bench.terminal import duration, say

LEAST_S = 5.0  # that a measurement is begun for
CORE_FLOPS = (
    2e11  # a second: no core of today multiplies faster in fp32 (two AVX-512 units, 64 operations a cycle, 3 GHz)
)
LEAST_CALLS = 8  # of each pass before there is an interval: check, warm-up and the fewest rounds
AT_ONCE = 4  # ways of training that are measured side by side; the sweep has the most informative first


class Timed:
    """Measures for one request."""

    def __init__(self, asked: Asked, device: Device) -> None:
        self._asked, self._device, self._began, self._fresh = asked, device, monotonic(), asked.fresh
        self.place = device.name
        own = psutil.virtual_memory().total if device.is_cpu else (device.memory_mib or 0) * 2**20
        self.limit = asked.memory or own or None
        plan = self.plan(asked.model)
        default = results_folder(Path("results") / device.key, folder_name(plan))
        self.folder: Path | None = usable("--out", asked.out or default)
        self._check_folder(self.folder)

    @staticmethod
    def _check_folder(folder: Path) -> None:
        """Raises UserError for the record of another sweep, which a new environment would have set aside."""
        runs = read_run(folder).get("invocations") or [{}]
        if (name := (runs[-1].get("sweep") or {}).get("name", SWEEP)) != SWEEP:
            raise UserError(f"--out {folder}: it holds a record of sweep {name}. Pass a folder of its own to advise.")

    def plan(self, request: ModelRequest) -> Plan:
        return model_plan(request, self._device.is_cpu)

    def find(self, request: ModelRequest, only: Kinds | None = None) -> Found:
        """What the record has of the cases, once what it lacks was measured as far as there is time."""
        plan = self.plan(request)
        plan = replace(plan, cases=tuple(c for c in plan.cases if only is None or (c.method, c.impl) in only))
        for cases in self._stages(plan, together=only is not None):
            if self._complete(plan, cases):
                continue
            self._check_time(cases)
            if self._left() < LEAST_S:
                say(f"The time is over; not measured: {', '.join(map(name_of, cases))}.")
                break
            self._measure(request, cases)
        return self._read(plan)

    def rooms(self, found: Found) -> dict[Case, Room]:
        """The largest batch and length of each option, tried from the fastest on while there is time; else by closed
        form. On a CPU only under a limit that was asked for, since it would fill the whole memory; else a try at the
        sizes asked for gives the peak alone."""
        formula = {o.case: room_by_formula(o.case, self.limit) for o in found.options}
        tries, tried = self._tries(), dict[Case, Room]()
        bisects = self._asked.memory is not None or not self._device.is_cpu
        what = "Trying which batch and length fit" if bisects else "Trying for the peak memory"
        left = self._left()
        say(f"{what}, at most {duration(left)}" if left > 0 else "The time is over: sizes are not tried.")
        with only_run_on(self._device, say):
            for option in found.shown:
                try:
                    tries.attempt(option.case)
                    if bisects:
                        tried[option.case] = room = self._room(option.case, tries)
                        say(f"{option.name}: batch {room.cell('batch')}, length {room.cell('seq')}")
                except OutOfTime:
                    break
                except RuntimeError as e:
                    say(f"{option.name}: no try came to an end: {e}")
        return formula | tried

    @staticmethod
    def _room(case: Case, tries: Tries) -> Room:
        found: dict[str, int] = {}
        cut = []
        for axis in ("batch", "seq"):
            try:
                found[axis] = tries.largest(case, axis)
            except AtLeast as e:
                found[axis] = e.value
                cut.append(axis)
        fits = tries.attempt(case).fits
        return Room(found["batch"], found["seq"], at_least=tuple(cut), too_small=not fits)

    def with_peaks(self, found: Found) -> Found:
        """With the peaks that tries found, of cases whose rows have none."""
        tries = self._tries()
        peaks = {o.case: t.peak / GIB for o in found.options if (t := tries.known(o.case)) and t.peak}
        return replace(found, options=[o if o.gib else replace(o, gib=peaks.get(o.case)) for o in found.options])

    def _left(self) -> float:
        return self._asked.seconds - (monotonic() - self._began)

    def _tries(self) -> Tries:
        assert self.folder is not None and self.limit is not None
        return Tries(self.folder, self._device, self.limit, self._left)

    def _stages(self, plan: Plan, together: bool = False) -> list[list[Case]]:
        """The cases that can run here, in the order in which they are measured."""
        can = [c for c in plan.cases if unsupported(c, "cpu" if self._device.is_cpu else "cuda") is None]
        size = len(can) if together else AT_ONCE
        return [can[i : i + size] for i in range(0, len(can), size or 1)]

    def _complete(self, plan: Plan, cases: Sequence[Case]) -> bool:
        """Whether the record may hold all of them; `bench run` itself knows whether they are still worth having."""
        assert self.folder is not None
        if self._fresh or not (self.folder / "run.json").exists():
            return False
        have = {key_of(row) for row in read_kept_rows(self.folder)[0]}
        return all((c.case_id, p, k, 0) in have for c in cases for p, k in plan.row_keys)

    def _check_time(self, cases: Sequence[Case]) -> None:
        """Raises UserError where a CPU cannot measure them in time, before anybody waits for it."""
        of_steps = sum(flops(c, "step") or 0 for c in cases) / CORE_FLOPS
        least = of_steps * LEAST_CALLS * 2  # a step, and forward and backward alone
        if self._device.is_cpu and least > self._asked.seconds:
            raise UserError(
                f"--time {duration(self._asked.seconds)}: {cases[0].subject} at {cases[0].conditions} takes"
                f" {duration(least)} on this CPU at the very least. Give a shorter --seq, or predict: --gpu"
                f" {', '.join(key for key in boards() if '-' not in key)}."
            )

    def _measure(self, request: ModelRequest, cases: Sequence[Case]) -> None:
        """Raises KeyboardInterrupt, and UserError where the run could not begin."""
        left = self._left()
        say(f"Measuring at most {duration(left)}: {', '.join(map(name_of, cases))}")
        command = [sys.executable, "-m", "bench", "run", *request.words, "--gpu", self._device.key]
        base = [c for c in self.plan(request).cases if c.method == BASELINE and c.trainable_layers == "all"]
        ids = dict.fromkeys(c.case_id for c in [*base, *cases])  # what is measured already stands beside the others
        command += ["--out", str(self.folder), "--where", f"case_id={','.join(ids)}"]
        command += ["--fresh"] * self._fresh
        self._fresh = False
        if run_command(command, ROOT, seconds=left, stdout=subprocess.DEVNULL) == 2:
            raise UserError("The measurement could not begin; the line above says why.")

    def _read(self, plan: Plan) -> Found:
        assert self.folder is not None
        known = read_kept_rows(self.folder)[0] if read_run(self.folder) else []
        ids = {c.case_id for c in plan.cases}
        rows = [r for r in {key_of(r): r for r in known}.values() if r["case_id"] in ids]
        repeats = repeats_of(rows, read_samples(self.folder)[0] if rows else [])
        clock = clocks_of(plan.clocks[0])[0]
        pass_ = "step" if any(key[1] == "step" for key in repeats) else "forward-backward"
        base = next((c for c in plan.cases if c.method == BASELINE and (c.case_id, pass_, clock) in repeats), None)

        def over(case: Case, other: Case) -> Estimate | None:
            ours, theirs = (repeats.get((c.case_id, pass_, clock)) for c in (case, other))
            return ratio_over(ours, theirs, pass_, clock) if ours and theirs else None

        peaks = {r["case_id"]: r["peak_mib"] / 1024 for r in rows if r["peak_mib"]}
        options = []
        for case in plan.cases:
            if found := repeats.get((case.case_id, pass_, clock)):
                ms = measured(found, generator(case.case_id, pass_, clock))[0].estimate
                options.append(Option(case, name_of(case), ms, _ratio(case, base, over), peaks.get(case.case_id)))
        states = {r["case_id"]: str(r["status"]) for r in rows}
        timed = {o.case.case_id for o in options}
        runs = [c for stage in self._stages(plan) for c in stage if c.case_id not in timed]
        lost = [(c, states.get(c.case_id, "not measured: the time was over")) for c in runs]
        return Found(options, over, [(c, why) for c, why in lost if why != Status.unsupported], pass_)


def _ratio(case: Case, base: Case | None, over: Over) -> Estimate | None:
    return None if base is None or case == base else over(case, base)
