"""The interval of a median and the stopping rule, on simulated samples and a fake clock."""

import numpy as np
import pytest
from scipy.signal import lfilter

from bench.record.stats import summarize
from bench.timing.cpu import CpuClock
from bench.timing.sampler import measure
from bench.timing.settings import MeasureSettings
from bench.timing.stop import stop_reason

DEFAULTS = MeasureSettings()


def test_a_layer_is_measured_for_less_time_than_a_model() -> None:
    """60 us calls converge at once: a layer stops after 0.02 s of them, and anything larger after 0.1 s."""
    counts = {}
    for level in ("linear", "block", "model"):
        work = Simulated(np.full(6000, 60e-6))
        work.backward = lambda out: None  # type: ignore[method-assign]
        found = measure(work, cpu(work), ("forward-backward",), level, DEFAULTS, now=work.now)
        counts[level] = len(found.samples_ms["forward-backward", "cpu-time"])
    assert counts == {"linear": 336, "block": 1672, "model": 1672}
    longer = MeasureSettings(min_time_s=0.05)
    assert {longer.least_time(level) for level in counts} == {0.05}, "a sweep's own word holds at every level"


class Simulated:
    """Work whose forward takes what a random series says, on a clock that only it moves."""

    has_refresh = False
    micro_steps = 1

    def __init__(self, forward_s: "np.typing.NDArray[np.float64]") -> None:
        self.time = 0.0
        self.calls = 0
        self._forward_s = forward_s

    def now(self) -> float:
        return self.time

    def clear(self) -> None:
        self.time += 1e-5

    ready = clear

    def forward(self) -> None:
        self.time += float(self._forward_s[self.calls % len(self._forward_s)])
        self.calls += 1

    def backward(self, out: object) -> None:
        self.time += 1e-3

    def optimizer_step(self) -> None:
        self.time += 5e-3

    def refresh(self) -> None:
        self.time += 2e-3


def cpu(work: Simulated) -> CpuClock:
    """The clock on which only `work` moves the time."""
    return CpuClock(now=work.now, worked=work.now)


def series(kind: str, rng: np.random.Generator, n: int = 6000) -> "np.typing.NDArray[np.float64]":
    """Milliseconds with a true median of 2."""
    if kind.startswith("jitter"):
        return 2.0 * (1 + float(kind.removeprefix("jitter-")) * rng.standard_normal(n))
    if kind == "drift":  # AR(1) 0.9 of 0.3 % in all
        noise = rng.standard_normal(n) * 0.003 * np.sqrt(1 - 0.9**2)
        noise[0] = rng.standard_normal() * 0.003
        return 2.0 * (1 + lfilter([1.0], [1.0, -0.9], noise))
    outlying = rng.random(n) < 0.01
    return 2.0 * (1 + 0.005 * rng.standard_normal(n)) * np.where(outlying, 3.0, 1.0)


# Under the most jitter a simulated run takes five times as many samples as under the others.
KINDS = ["jitter-0.002", "jitter-0.01", pytest.param("jitter-0.03", marks=pytest.mark.slow), "drift", "outliers"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_converged_median_is_right_and_its_interval_covers(kind: str) -> None:
    rng = np.random.default_rng(7)
    errors, covered = [], []
    for _ in range(200):
        samples = series(kind, rng) / 1e3
        work = Simulated(samples)
        found = measure(work, cpu(work), ("forward",), "linear", DEFAULTS, now=work.now)
        e = summarize(found.samples_ms["forward", "cpu-time"])
        covered.append(e.ci_low_ms <= 2.0 <= e.ci_high_ms)
        if found.stop["forward"] == "converged":
            errors.append(abs(e.median_ms / 2.0 - 1))
    assert len(errors) > 100, "the rule converges"
    assert np.percentile(errors, 95) <= 0.005
    assert np.mean(covered) >= 0.85


def test_intervals_for_independent_samples_fail_under_drift() -> None:
    """Why the interval is widened: without the autocorrelation it would cover far less often."""
    rng = np.random.default_rng(3)
    naive = []
    for _ in range(200):
        x = np.sort(series("drift", rng, 64))
        k = int(64 / 2 - 0.98 * 64**0.5)
        naive.append(x[k] <= 2.0 <= x[64 - k - 1])
    assert np.mean(naive) < 0.7


def test_estimate_by_hand() -> None:
    e = summarize([3.0, 1.0, 2.0, 5.0, 4.0])
    assert (e.median_ms, e.min_ms, e.n) == (3.0, 1.0, 5)
    assert (e.ci_low_ms, e.ci_high_ms) == (1.0, 5.0), "five samples carry no narrower interval"
    assert summarize([2.0]).half_width == 0.0
    assert summarize([1.0] * 98 + [9.0, 0.1]).outliers == 2, "counted on both sides, and kept"


def test_the_order_of_samples_matters_under_drift() -> None:
    rng = np.random.default_rng(0)
    drifting = np.sort(rng.standard_normal(200)) + 100
    shuffled = rng.permutation(drifting)
    assert summarize(drifting).half_width > 2 * summarize(shuffled).half_width


@pytest.mark.parametrize(
    ("n", "spread", "measured_s", "wall_s", "reason"),
    [
        (5, 0.0, 99.0, 99.0, None),  # fewer than 6 samples carry no interval
        (6, 0.5, 0.01, 15.0, "wall"),
        (16, 0.0, 5.0, 5.0, None),  # under 24 samples
        (25, 0.0, 5.0, 5.0, None),  # checked every 8
        (24, 0.0, 0.05, 5.0, None),  # under 0.1 s of measured time
        (24, 0.0, 0.1, 5.0, "converged"),
        (40, 0.0, 0.1, 5.0, "converged"),
        (24, 0.5, 2.9, 5.0, None),
        (24, 0.5, 3.0, 5.0, "budget"),
        (5000, 0.5, 1.0, 5.0, "samples"),
    ],
)
def test_the_rules_for_stopping(n: int, spread: float, measured_s: float, wall_s: float, reason: str | None) -> None:
    rng = np.random.default_rng(1)
    samples = 1 + spread * rng.random(n)
    assert stop_reason([samples], measured_s, wall_s, DEFAULTS, "block") == reason


def test_the_whole_model_has_a_longer_budget() -> None:
    samples = [1 + 0.5 * np.random.default_rng(1).random(24)]
    assert stop_reason(samples, 3.0, 5.0, DEFAULTS, "model") is None
    assert stop_reason(samples, 6.0, 6.5, DEFAULTS, "model") == "budget"


def test_every_pass_must_converge() -> None:
    calm, wild = np.ones(24), 1 + np.random.default_rng(1).random(24)
    assert stop_reason([calm, calm], 1.0, 1.0, DEFAULTS, "linear") == "converged"
    assert stop_reason([calm, wild], 1.0, 1.0, DEFAULTS, "linear") is None


def test_warm_up_runs_the_sample_procedure_and_is_not_measured() -> None:
    slow_start = np.full(6000, 0.01)
    slow_start[:19] = 0.5  # as while clocks ramp
    work = Simulated(slow_start)
    checks: list[int] = []
    found = measure(
        work, cpu(work), ("forward", "backward", "forward-backward"), "linear", DEFAULTS,
        lambda _pass, e: checks.append(e.n), work.now,
    )  # fmt: skip
    assert found.warmup_s == pytest.approx(2.0, abs=0.5), "at most 2 s, though fewer than 5 calls fit"
    assert checks and all(n % 8 == 0 for n in checks)

    work = Simulated(np.full(6000, 0.01))
    found = measure(work, cpu(work), ("forward",), "linear", DEFAULTS, now=work.now)
    assert 0.2 <= found.warmup_s < 0.25
    assert set(found.samples_ms) == {("forward", "cpu-time"), ("forward", "cpu")}
    assert found.samples_ms["forward", "cpu-time"] == pytest.approx(
        [10.0] * len(found.samples_ms["forward", "cpu-time"])
    )


def test_passes_that_a_work_is_never_timed_for_have_the_reason() -> None:
    work = Simulated(np.full(6000, 0.01))
    passes = ("forward", "backward", "step")
    never = {"backward": "a baseline for forward", "step": "a baseline for forward"}
    found = measure(work, cpu(work), passes, "linear", DEFAULTS, now=work.now, never=never)
    rows = {r["pass"]: r for r in found.series(passes)}
    assert rows["forward"]["status"] == "ok" and rows["forward"]["samples_ms"]
    for p in ("backward", "step"):
        assert (rows[p]["status"], rows[p]["detail"]) == ("unsupported", "a baseline for forward")


@pytest.mark.parametrize(("micro_steps", "refresh"), [(1, True), (4, True), (4, False)])
def test_a_step_is_its_micro_steps_the_optimizer_and_the_refresh(micro_steps: int, refresh: bool) -> None:
    work = Simulated(np.full(6000, 0.01))
    work.has_refresh, work.micro_steps = refresh, micro_steps
    passes = ("forward", "backward", "forward-backward", "step")
    found = measure(work, cpu(work), passes, "linear", DEFAULTS, now=work.now)
    medians = {p: summarize(s).median_ms for (p, _), s in found.samples_ms.items()}
    whole = micro_steps * 11.0 + 5.0 + 2.0 * refresh
    assert medians == pytest.approx({"forward": 10.0, "backward": 1.0, "forward-backward": 11.0, "step": whole})
    assert found.part_ms("refresh") == (pytest.approx(2.0) if refresh else None) and found.part_ms(
        "optimizer"
    ) == pytest.approx(5.0)
    assert found.parts_ms() == pytest.approx(whole)
    rows = {r["pass"]: r for r in found.series(passes)}
    assert rows["step"]["parts_ms"] == found.parts_ms() and "parts_ms" not in rows["forward"]
    alone = measure(work, cpu(work), ("step",), "linear", DEFAULTS, now=work.now)
    assert summarize(alone.samples_ms["step", "cpu"]).median_ms == pytest.approx(whole) and alone.parts_ms() is None


def test_slow_samples_are_told_one_by_one() -> None:
    """Eight whole steps on a slow machine may take longer than the silence after which a worker is taken for hung."""
    work = Simulated(np.full(6000, 20.0))
    told: list[int] = []
    measure(
        work,
        cpu(work),
        ("forward",),
        "model",
        DEFAULTS,
        lambda _pass, e: told.append(e.n),
        work.now,
    )
    assert told == list(range(1, DEFAULTS.wall_min_samples + 1))


def test_a_step_that_costs_more_than_its_parts_shows() -> None:
    """The last of four micro-steps in a row takes longer; alone, only one sample in four does, which no median sees."""
    work = Simulated(np.full(6000, 0.01))
    work.micro_steps = 4
    backward = work.backward

    def slower_in_a_row(out: object) -> None:
        backward(out)
        work.time += 1e-3 * (work.calls % 4 == 0)

    work.backward = slower_in_a_row  # type: ignore[method-assign]
    found = measure(work, cpu(work), ("forward-backward", "step"), "linear", DEFAULTS, now=work.now)
    assert found.parts_ms() == pytest.approx(4 * 11.0 + 5.0)
    assert summarize(found.samples_ms["step", "cpu"]).median_ms == pytest.approx(4 * 11.0 + 5.0 + 1.0)
