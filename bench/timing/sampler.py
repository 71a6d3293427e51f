"""Warm-up, then samples: alone until the stopping rule says enough, or in blocks, one a round."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from time import perf_counter
from types import MappingProxyType

from bench.case.schema import Status
from bench.record.stats import Summary, summarize
from bench.timing.base import Clock, Sample, Timed, Unsupported
from bench.timing.gpu_state import GpuState, summary
from bench.timing.measurement import Measurement, Samples
from bench.timing.settings import MeasureSettings
from bench.timing.stop import stop_reason
from bench.timing.watch import CpuWatch, GpuWatch, Unfit, Watch, run_delay_s

STILL = 1000  # calls in a row during which a clock did not move: its ticks are too long for them
SLOW_MS = 5_000  # after a sample as slow as this a sign of life is due, lest check_every of them be taken for a hang

OnCheck = Callable[[str, Summary], None]


def measure(
    work: Timed,
    clock: Clock,
    passes: tuple[str, ...],
    level: str,
    settings: MeasureSettings,
    on_check: OnCheck = lambda _pass, _estimate: None,
    now: Callable[[], float] = perf_counter,
    state: GpuState | None = None,
    sleep: Callable[[float], None] = time.sleep,
    never: Mapping[str, str] = MappingProxyType({}),
) -> Measurement:
    """Samples `work` alone under `clock` until the medians of all `passes` have converged or a budget is spent; see
    Sampler, whose arguments these are, and Sampler.alone."""
    return Sampler(work, clock, passes, level, settings, now, state, sleep, never).alone(on_check)


class Sampler:
    """Takes the samples of one work under one clock, and keeps them.

    What cannot be measured is a status of the result, not an exception.
    """

    def __init__(
        self,
        work: Timed,
        clock: Clock,
        passes: tuple[str, ...],
        level: str,
        settings: MeasureSettings,
        now: Callable[[], float] = perf_counter,
        state: GpuState | None = None,
        sleep: Callable[[float], None] = time.sleep,
        never: Mapping[str, str] = MappingProxyType({}),
        waited: Callable[[], float | None] = run_delay_s,
    ) -> None:
        """state: asked between blocks of samples; None where there is no NVML.
        never: passes that this work is not timed for, with the reason, beside those of the clock.
        waited: how long this process has waited for a core so far, in seconds; see CpuWatch."""
        self._work, self._clock, self._level, self._settings, self._now = work, clock, level, settings, now
        self._cannot = {p: reason for p, reason in {**clock.cannot, **never}.items() if p in passes}
        timed = [p for p in passes if p not in self._cannot]
        # Micro-steps, and whole optimizer steps where `passes` has them: the parts of a step are timed apart, and the
        # whole is a check on their sum.
        self._parts = [part for part in ([p for p in timed if p != "step"], [p for p in timed if p == "step"]) if part]
        on_cpu = clock.name == "cpu-time" and state is None
        self._look_s = 0.0 if on_cpu else settings.look_s
        self._watch: Watch = CpuWatch(settings, now, waited) if on_cpu else GpuWatch(state, settings, sleep)
        self._taken: Samples = {}
        self._rounds: dict[str, list[int]] = {}
        self._stop: dict[str, str] = {}
        self._dropped = self._still = 0
        self._warmup_s = self._sampling_s = 0.0
        self._status, self._detail, self._spoiled = Status.ok, None, False  # type: tuple[Status, str | None, bool]

    @property
    def failed(self) -> bool:
        """Whether there will be no numbers."""
        return self._status is not Status.ok or not self._parts

    def alone(self, on_check: OnCheck = lambda _pass, _estimate: None) -> Measurement:
        """Micro-steps first, then whole steps, each with a warm-up and budgets of its own.

        `on_check(pass, estimate)` is called between samples, never inside one, every `check_every` samples and after
        each slow one.
        """
        with self._guarded():
            self._prepare()
            for part in self._parts:
                try:
                    self._warm_up(part)
                    begun = self._now()
                    self._sample(part, on_check)
                except Unsupported as e:
                    if e.spoils or not self._taken:
                        raise
                    self._cannot |= dict.fromkeys(part, str(e))  # whole steps; the micro-steps keep their times
                    continue
                self._sampling_s += self._now() - begun
        return self._measurement()

    def begin(self) -> None:
        """Before the first block: prepares the clock and warms up, once for all blocks."""
        with self._guarded():
            self._prepare()
            for part in self._parts:
                self._warm_up(part)

    def block(self, round_: int, seconds: float) -> Samples:
        """At least one sample of each pass, and more for about `seconds`; the samples of this block.

        Micro-steps and whole steps share the block, so that a step and its parts see the same machine.
        """
        block: Samples = {}
        with self._guarded():
            begun = self._now()
            while True:
                block, dropped = self._take_block(seconds / len(self._parts))
                self._dropped += dropped
                if self._watch.fit():
                    break
                self._dropped += max(map(len, block.values()))
            self._sampling_s += self._now() - begun
            for (p, clock), samples in block.items():
                self._taken.setdefault((p, clock), []).extend(samples)
                if clock == self._clock.name:
                    self._rounds.setdefault(p, []).extend([round_] * len(samples))
        return block if not self.failed else {}

    def end(self, stop: str) -> Measurement:
        """After the last block; `stop` is why it was the last."""
        self._stop = dict.fromkeys((p for part in self._parts for p in part), stop)
        return self._measurement()

    def _take_block(self, seconds: float) -> tuple[Samples, int]:
        """(samples, how many did not count) of one block, `seconds` for each part."""
        block: Samples = {}
        dropped = 0
        self._watch.begin()  # once: what it sees until `fit` is asked is of all parts
        for part in self._parts:
            step = "step" in part
            known = self._taken.get((part[-1], self._clock.name))
            # A neighbour's turn has emptied the caches, and on a GPU this process has given its unused memory back: an
            # untimed sample first. Not on a CPU where one takes most of a block: it streams through the caches anyway.
            if self._clock.name != "cpu-time" or (known and 4e-3 * known[-1] * self._clock.calls < seconds):
                self._clock.sample(self._work, step)
            begun = self._now()
            there = False
            while not there or self._now() - begun < seconds:
                sample = self._call(part)
                if sample is None:
                    dropped += 1
                    continue
                there = True
                for (p, clock), ms in sample.items():
                    if not (p == "refresh" and not step and len(self._parts) > 1):  # due after a step, where one is
                        block.setdefault((p, clock), []).append(ms)
        return block, dropped

    def _call(self, part: list[str]) -> Sample | None:
        """One sample; None where it does not count. Nothing takes no time: where a clock did not move during a pass, as
        CPU time once did not in a call of 0.1 ms on a busy virtual machine, it tells nothing. Raises Unsupported where
        it never moves."""
        sample = self._clock.sample(self._work, "step" in part)
        still = next(((p, c) for (p, c), ms in (sample or {}).items() if p in part and ms <= 0), None)
        self._still = self._still + 1 if still else 0
        if still and self._still >= STILL:
            raise Unsupported(f"clock {still[1]} did not move during {still[0]} in {STILL} calls in a row")
        return None if still else sample

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Turns what ends a measurement into its status."""
        try:
            yield
        except Unsupported as e:
            self._status, self._detail, self._spoiled = Status.unsupported, str(e), e.spoils
        except Unfit as e:
            self._status, self._detail, self._taken = e.status, str(e), {}

    def _measurement(self) -> Measurement:
        with suppress(RuntimeError):  # where the CUDA context is lost, freeing fails too, and says less
            self._clock.close()
        kept = {p for part in self._parts for p in part if p not in self._cannot}
        return Measurement(
            clock=self._clock.name,
            samples_ms={key: s for key, s in self._taken.items() if key[0] in kept},
            taken=self._taken,
            stop=self._stop,
            micro_steps=self._work.micro_steps,
            warmup_s=self._warmup_s,
            wall_s=self._sampling_s,
            rounds={p: r for p, r in self._rounds.items() if p in kept},
            status=self._status,
            detail=self._detail,
            cannot=self._cannot,
            launches=self._clock.launches,
            dropped=self._dropped,
            state=summary(self._watch.readings),
            clocks_set=self._watch.clocks_set,
            spoiled=self._spoiled,
        )

    def _prepare(self) -> None:
        began = self._now()
        if self._parts:
            self._clock.prepare(self._work, self._level)
        self._warmup_s += self._now() - began

    def _warm_up(self, part: list[str]) -> None:
        """The real sample procedure, so that clocks ramp and caches fill as they will be."""
        started = self._now()
        self._clock.warm_up()
        calls = 0
        settings = self._settings
        while calls < settings.warmup_calls or self._now() - started < settings.warmup_s:
            self._clock.sample(self._work, "step" in part)
            calls += 1
            if self._now() - started >= settings.warmup_max_s:
                break
        self._clock.settle()
        self._warmup_s += self._now() - started

    def _sample(self, part: list[str], on_check: OnCheck) -> None:
        """Samples in blocks that end at a look at the device: after a multiple of check_every samples, on a GPU after
        look_s at least, since NVML takes longer to answer than a short call. A block at whose end the device is not fit
        is dropped, and taken again."""
        settings, step = self._settings, "step" in part
        wanted = [(p, self._clock.name) for p in part]
        whole = (("step" if step else "forward-backward"), self._clock.name)
        taken: Samples = {}
        kept = 0  # samples of the blocks that count
        measured_ms = 0.0  # of the calls themselves
        begun = looked = self._now()
        self._watch.begin()
        while True:
            sample = self._call(part)
            if sample is None:
                self._dropped += 1
                continue
            for key, ms in sample.items():
                taken.setdefault(key, []).append(ms)
            n = len(taken[whole])
            measured_ms += sample[whole] * self._clock.calls
            series = [taken[w] for w in wanted]
            reason = stop_reason(series, measured_ms / 1e3, self._now() - begun, settings, self._level)
            if sample[whole] * self._clock.calls >= SLOW_MS and n % settings.check_every:
                on_check(part[-1], summarize(taken[wanted[-1]]))
            if not reason and n % settings.check_every:
                continue
            if reason or self._now() - looked >= self._look_s:
                fit, looked = self._watch.fit(), self._now()
                if not fit:
                    self._dropped += n - kept
                    measured_ms -= sum(taken[whole][kept:]) * self._clock.calls
                    for samples in taken.values():
                        del samples[kept:]
                    continue
                kept = n
            if n % settings.check_every == 0:
                on_check(part[-1], summarize(taken[wanted[-1]]))
            if reason:
                self._taken |= taken
                self._stop |= dict.fromkeys(part, reason)
                return
