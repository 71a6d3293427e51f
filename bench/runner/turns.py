"""What a worker does with one case at a time: check it, build it, give blocks of samples in turn, check it again."""

import gc
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from bench.case import Case
from bench.case.schema import Status
from bench.correctness.check import check, finite
from bench.correctness.optimizer import unmoved
from bench.correctness.shrink import default_tokens, shrink
from bench.methods.registry import impl_of, note
from bench.methods.stages import in_each_stage
from bench.models.attention_backend import attention_backend
from bench.models.build import build
from bench.models.work import Work
from bench.record.stats import Summary
from bench.timing.clocks import make_clock
from bench.timing.cycle import CycleClock
from bench.timing.energy import with_energy
from bench.timing.gpu_state import GpuState
from bench.timing.heap import give_back
from bench.timing.measurement import Measurement
from bench.timing.peak_memory import brief, out_of_memory, peak_mib
from bench.timing.sampler import Sampler
from bench.timing.settings import MeasureSettings

Emit = Callable[..., None]

BEFORE, AFTER = 0, 1  # seeds of the correctness check's weights and inputs

_compiled_s: list[float] = []  # seconds of each Triton compilation since they were last asked for
_dynamo_s: list[float] = []  # seconds of torch.compile at each time before


class Turns:
    """Obeys the scheduler's commands, and tells by `emit` what came of each."""

    def __init__(
        self, device: torch.device, passes: list[str], settings: MeasureSettings, emit: Emit, state: GpuState | None
    ) -> None:
        self._device, self._passes, self._settings, self._emit, self._state = device, passes, settings, emit, state
        self._case: Case | None = None
        self._work: Work | None = None
        self._sampler: Sampler | None = None
        self._peak: float | None = None
        self._attention: str | None = None
        self._spoiled = False
        if device.type == "cuda":
            _listen_to_triton()

    def obey(self, command: dict[str, Any]) -> bool:
        """Carries a command out. False where this process must not go on: its memory or its CUDA context is spent."""
        what = command.pop("do")
        siblings = set(command.pop("siblings", ()))
        if self._state is not None:
            self._state.siblings = siblings
        try:
            getattr(self, what)(**command)
        except Exception as e:
            status = Status.oom if out_of_memory(e) else Status.error
            if status is Status.error:
                import traceback

                traceback.print_exc()  # to the log
            return self._failed(status, brief(e), goes_on=status is Status.error and self._device.type == "cpu")
        return not (self._spoiled and what == "finish")

    def _failed(self, status: Status, detail: str, goes_on: bool = False) -> bool:
        self._drop()
        self._emit("failed", status=status, detail=detail, last=not goes_on)
        return goes_on

    def _drop(self) -> None:
        """Frees what the case holds."""
        self._case = self._work = self._sampler = None
        self._free()

    def _free(self) -> None:
        """Gives back memory that is not in use."""
        gc.collect()
        if self._device.type == "cpu":
            give_back()
        elif not self._spoiled:
            torch.cuda.empty_cache()

    def _phase(self, phase: str) -> None:
        """Any first call compiles, and so does one under another autocast cache, as clock graph has it."""
        compiles = self._case is not None and self._case.compiles
        patience = {"patience_s": self._settings.compile_timeout_s} if compiles else {}
        self._emit("phase", phase=f"compiling, {phase}" if compiles else phase, **patience)

    def prepare(self, case: dict[str, Any]) -> None:
        """Checks and builds a case, so that its first block may begin."""
        started = perf_counter()
        self._case = Case(**case)
        self._phase("checking")
        # Before there is a model beside the check's copies.
        small = shrink(self._case, default_tokens(self._case, self._device))
        if wrong := _before(small, self._device, "step" in self._passes):
            self._failed(Status.wrong, wrong, goes_on=True)
            return
        checked = perf_counter()
        self._phase("building")
        self._work = build(self._case, str(self._device))
        built = perf_counter()
        if wrong := finite(self._work):
            self._failed(Status.wrong, wrong, goes_on=True)
            return
        checking_s = checked - started + perf_counter() - built
        self._free()  # what the check took
        self._attention = _attention(self._work)
        self._peak = _peak(self._work, self._device, "step" in self._passes)
        self._rest()
        self._emit("prepared", spent=_spent(built - checked, checking_s))

    def begin(self, clock: str) -> None:
        """Warms up under a clock, for rounds."""
        self._phase(f"warming up, clock {clock}")
        self._sampler = self._new_sampler(clock)
        self._sampler.begin()
        self._rest()
        self._emit("begun")

    def block(self, number: int, seconds: float) -> None:
        """One block of samples, its share of round `number`."""
        assert self._sampler is not None
        block = self._sampler.block(number, seconds)
        self._rest()
        self._emit("block", samples=[[p, clock, samples] for (p, clock), samples in block.items()])

    def end(self, stop: str) -> None:
        """The rounds are over; `stop` is why."""
        assert self._sampler is not None
        self._tell(self._sampler.end(stop))
        self._rest()

    def alone(self, clock: str) -> None:
        """All samples of a clock in one go."""
        self._phase(f"measuring {clock}")

        def tell(pass_: str, e: Summary) -> None:
            self._emit("estimate", **{"pass": pass_}, **asdict(e))

        self._tell(self._new_sampler(clock).alone(tell))

    def finish(self) -> None:
        """The same case once more against the reference, on other inputs: whether timing has spoiled anything."""
        assert self._case is not None
        if not self._spoiled:  # what a failed capture left behind ends with this process
            self._phase("checking again")
            started = perf_counter()
            case = self._case
            self._drop()  # its memory is the check's now
            found = check(case, self._device, AFTER, brief=True)
            if not found.passed:
                self._failed(Status.wrong, f"after timing: {found.detail}", goes_on=True)
                return
            spent = _spent(0.0, perf_counter() - started)
            self._drop()  # before the scheduler asks whether the next cases fit
            self._emit("done", spent=spent, last=False)
        else:
            self._drop()
            self._emit("done", last=True)

    def explain(self, case: dict[str, Any], medians: list[Any], trace: str | None) -> None:
        """What the time of a case goes into, by a profile, which leaves its marks on a process: nothing is timed here.
        medians: pass, clock and ms of each; trace: where a Chrome trace goes."""
        from bench.causes.explain import explain

        self._case = Case(**case)
        print(f"profiling {self._case.describe()}")  # to the log, which cases may share
        self._phase("profiling")
        splits = explain(
            self._case, str(self._device), {(p, c): ms for p, c, ms in medians}, None if trace is None else Path(trace)
        )
        self._drop()
        self._emit("explained", splits=[[*key, asdict(split)] for key, split in splits.items()])

    def _new_sampler(self, clock: str) -> Sampler:
        assert self._case is not None and self._work is not None
        case = self._case
        made = make_clock(clock, self._device, case.l2 == "cold", self._settings)
        made = CycleClock(made, self._work.stages) if self._work.stages > 1 else made
        never = impl_of(case).cannot
        return Sampler(
            self._work, made, tuple(self._passes), case.level, self._settings, state=self._state, never=never
        )

    def _tell(self, m: Measurement) -> None:
        assert self._case is not None and self._work is not None
        self._spoiled |= m.spoiled
        series, began = m.series(self._passes), perf_counter()
        # Not where stages take turns: what calls back to back take is that of one.
        if self._settings.energy and self._case.level != "linear" and self._work.stages == 1 and not m.spoiled:
            wait = partial(torch.cuda.synchronize, self._device)
            series = with_energy(series, self._work, self._state, wait)
        self._emit(
            "measured",
            series=series,
            peak_mib=self._peak,
            model_dropout=self._work.model_dropout,
            attention=self._attention,
            note=note(self._work.model, self._case),
            clocks_set=m.clocks_set,
            spoiled=m.spoiled,
            spent={"warming up": m.warmup_s, "measuring": m.wall_s + perf_counter() - began},
        )

    def _rest(self) -> None:
        """Leaves the device idle, and free of memory that is not in use: a neighbour measures next."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
            torch.cuda.empty_cache()


def _peak(work: Work, device: torch.device, step: bool) -> float | None:
    """Of whatever stage takes most."""
    found = in_each_stage(work, lambda: peak_mib(work, device, step))
    return max(filter(None, found), default=None)


def _attention(work: Work) -> str | None:
    """Which attention kernel torch chooses for it, seen in one more forward; None at level linear."""
    if work.case.level == "linear":
        return None
    out = work.forward()
    assert isinstance(out, torch.Tensor)
    return attention_backend(out)


def _spent(building_s: float, checking_s: float) -> dict[str, float]:
    """Where a case's time beside its samples went. The check is the first to run a kernel, and so to compile it."""
    compiling_s = sum(_compiled_s)
    _compiled_s.clear()
    if (compiled := sys.modules.get("bench.methods.compiled")) is not None:
        in_all_s: float = compiled.compiling_s()
        compiling_s += in_all_s - sum(_dynamo_s)
        _dynamo_s.append(in_all_s - sum(_dynamo_s))
    return {"building": building_s, "compiling": compiling_s, "checking": max(0.0, checking_s - compiling_s)}


def _listen_to_triton() -> None:
    """Notes how long each compilation takes; loads from Triton's cache take next to nothing and count too."""
    if find_spec("triton") is None:
        return
    import triton

    triton.knobs.compilation.listener = lambda *, times, **_: _compiled_s.append(times.total / 1e6)


@cache
def _before(case: Case, device: torch.device, step: bool) -> str | None:
    """What is wrong with the impl of a case cut down to the check's size, in a sentence, or None. Cut down, the lengths
    of a model are mostly the same case, and are checked once. step: its optimizer is timed."""
    found = check(case, device, BEFORE)
    if not found.passed:
        return found.detail
    return unmoved(build(case, str(device), BEFORE)) if step and case.optimizer else None
