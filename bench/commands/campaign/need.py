"""How long a campaign's stages take on a GPU, by the sampler's own rules. Without a GPU, and nothing here was measured.

What the rules say (warm-up, rounds, stopping, budgets, who fits beside whom) is taken from MeasureSettings and the
scheduler. What they do not say, how fast a call runs and what a process costs, is an ESTIMATE below; the time of a call
is its roofline time over the share of the peak that such a call is expected to reach.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from bench.case import Case
from bench.case.clocks import CLOCKS
from bench.commands.campaign.stages import NO_SWEEPS, STAGES, TUNE_S, part_of
from bench.commands.precompile import layers_of
from bench.devices import Device
from bench.methods.registry import trainable_params, unsupported
from bench.record.stats import MIN_SAMPLES
from bench.roofline.memory import need, too_large
from bench.roofline.peaks import Peaks, peaks_of
from bench.roofline.roofline import compulsory_bytes, roofline_ms
from bench.runner.fit import fits
from bench.runner.plan import baseline_of, comparisons
from bench.sweeps.expand import Plan, make_plan
from bench.timing.energy import LEAD_S, LEAST_S
from bench.timing.settings import MeasureSettings

# Estimates, in seconds unless said otherwise.
TESTS_S = 115.0  # 60 to 80 of the kernels' in 12 processes, and a few of the clocks
COMPILED_PER_LAYER, COMPILE_S, COMPILERS = 4, 1.0, 12  # kernels of a layer at one number of tokens; processes
COMMAND_S = 8.0  # python -m bench run before its first worker, and python -m plots after it
IMPORT_S, CONTEXT_S, CEILINGS_S = 8.0, 1.5, 3.0  # workers import side by side and enter CUDA one after the other
BUILD_S, BUILD_A_BYTE_S = {"linear": 0.05, "block": 0.3, "model": 0.5}, 0.1e-9  # random weights of a case
CHECK_S = {"linear": 0.7, "block": 1.5, "model": 2.5}  # first; a model's second length is the same check
AGAIN_S = {"linear": 0.3, "block": 0.5, "model": 1.0}  # after timing
CAPTURE_S = {"linear": 0.1, "block": 0.3, "model": 1.5}
TURN_S = {"linear": 0.004, "block": 0.01, "model": 0.03}  # of a block: NVML, memory given back and taken again
SHARE_OF_PEAK = 0.45
BLOCK_LAUNCHES_S = {"full": 0.5e-3, "lora": 1.0e-3, "paca": 0.6e-3}  # host's time of a decoder block, both passes
LAYER_HOST_S = 150e-6  # the same of one layer, and what a sample costs beside its call
JITTER = {"eager": 0.010, "graph": 0.003}  # relative deviation of a ratio by round, and of a replay

# Samples that narrow an interval of the median to 0.9 of the target: normal samples, whose median deviates by 1.2533
# sigma / sqrt(n), at 1.96.
_NORMAL = 1.96 * 1.2533 / 0.9


@dataclass(frozen=True)
class Pace:
    """Of a case: seconds of a call and of what a sample costs beside it, by part of a measurement."""

    parts: tuple[float, ...]  # micro-step, and where it is timed the whole step
    beside: float

    @property
    def first(self) -> float:
        return self.parts[0]


def pace(case: Case, plan: Plan, peaks: Peaks, clock: str) -> Pace:
    """What a case's samples are expected to take under a clock."""
    gpu_s = (roofline_ms(case, "forward-backward", peaks) or 0.0) / 1e3 / SHARE_OF_PEAK
    gpu_s = max(gpu_s, (compulsory_bytes(case, "forward-backward") or 0) / (peaks.memory_tbs * 1e12) / SHARE_OF_PEAK)
    host_s = BLOCK_LAUNCHES_S[case.method] * case.blocks or LAYER_HOST_S
    flush_s = 2 * (peaks.l2_mib or 0) * 2**20 / (peaks.memory_tbs * 1e12) if case.l2 == "cold" else 0.0
    one = gpu_s if clock == "graph" else max(gpu_s, host_s)
    parts = [one]
    if "step" in plan.passes and clock != "graph":
        optimizer_s = 16 * trainable_params(case) / (peaks.memory_tbs * 1e12)
        parts.append(case.micro_steps * one + optimizer_s)
    return Pace(tuple(parts), flush_s + LAYER_HOST_S)


def warm_up_s(p: Pace, s: MeasureSettings) -> float:
    """As Sampler warms up: calls and seconds at least, and so long at most."""
    found = 0.0
    for part in p.parts:
        each = part + p.beside
        calls = max(s.warmup_calls, ceil(s.warmup_s / each))
        found += min(calls, ceil(s.warmup_max_s / each)) * each
    return found


def alone_s(p: Pace, s: MeasureSettings, level: str, clock: str) -> float:
    """Warm-up and samples of a case that is measured alone; see bench.timing.stop."""
    found = warm_up_s(p, s)
    for part in p.parts:
        narrow = ceil((_NORMAL * JITTER[clock] / s.target) ** 2)
        n = max(s.min_samples, narrow + s.check_every, ceil(s.least_time(level) / part))  # at two checks in a row
        n = ceil(n / s.check_every) * s.check_every
        n = min(n, ceil(max(s.budget(level) / part, s.min_samples)), s.max_samples)
        n = min(n, max(s.wall_min_samples, ceil(s.wall_s / (part + p.beside))))
        found += n * (part + p.beside)
    return found


def rounds_s(paces: Sequence[Pace], s: MeasureSettings, level: str) -> float:
    """Warm-up and rounds of a comparison; see bench.runner.rounds."""
    wall = measured = 0.0
    for p in paces:
        for part in p.parts:
            samples = max(1, ceil(s.block_s / len(p.parts) / (part + p.beside)))
            wall += (samples + 1) * (part + p.beside)
        measured += samples * part  # of the last part, which holds all others
        wall += TURN_S[level]
    narrow = ceil((_NORMAL * JITTER["eager"] / s.ratio_target) ** 2) + 2
    budget = ceil(s.budget(level) * len(paces) / measured)
    n = min(max(s.min_rounds, min(narrow, budget)), s.max_rounds)
    n = min(n + n % 2, max(MIN_SAMPLES, ceil(s.wall_s * len(paces) / wall)))
    return sum(warm_up_s(p, s) for p in paces) + n * wall


def sweep_s(plan: Plan, device: Device) -> float:
    """A stage that is a sweep, from its command to its report."""
    peaks = peaks_of(device.name, device.sm_count)
    assert peaks is not None, "an estimate needs the peaks of gpus.yaml"
    there = [c for c in plan.cases if not unsupported(c, "cuda")]
    there = [c for c in there if not too_large(c, "step" in plan.passes, device.memory_mib)]
    lanes = {(c.method, c.impl, c.trainable_layers) for c in there}
    seconds = COMMAND_S + IMPORT_S + CEILINGS_S + CONTEXT_S * len(lanes)
    checked: set[tuple[object, ...]] = set()
    for group in comparisons((0, c) for c in there):
        for seats, rounds in _together([c for _, c in group], plan, device):
            seconds += _seats_s(seats, rounds, plan, peaks, checked)
    return seconds


def _together(cases: list[Case], plan: Plan, device: Device) -> Iterator[tuple[list[Case], bool]]:
    """The cases that are live at once, as Scheduler seats them, and whether they take turns."""
    step = "step" in plan.passes
    base = baseline_of(cases)
    if base is None or fits(cases, step, device):
        yield cases, len(cases) > 1
        return
    others = [c for c in cases if c is not base]
    pairs = [c for c in others if fits([base, c], step, device)]
    yield from (([base, c], True) for c in pairs)
    yield from (([c], False) for c in others if c not in pairs)
    if not pairs:
        yield [base], False


def _seats_s(cases: list[Case], rounds: bool, plan: Plan, peaks: Peaks, checked: set[tuple[object, ...]]) -> float:
    seconds = 0.0
    for case in cases:
        what = (case.model, case.layer, case.training) if case.level == "model" else (case,)
        seconds += (CHECK_S[case.level] if what not in checked else 0.0) + AGAIN_S[case.level]
        checked.add(what)
        seconds += BUILD_S[case.level] + BUILD_A_BYTE_S * need(case, "step" in plan.passes).at_least
    level = cases[0].level
    for clock in plan.clocks:
        paces = [pace(c, plan, peaks, clock) for c in cases]
        if rounds and CLOCKS[clock].in_rounds:
            seconds += rounds_s(paces, plan.settings, level)
        else:
            seconds += sum(alone_s(p, plan.settings, level, clock) for p in paces)
            seconds += len(cases) * CAPTURE_S[level] * (clock == "graph")
        seconds += len(cases) * (LEAD_S + LEAST_S) * (plan.settings.energy and clock == "eager")
    return seconds


def needs(device: Device, names: Sequence[str] = STAGES) -> dict[str, float]:
    """Seconds of each stage of a campaign on a GPU, in their order, all of them from nothing; estimates."""
    parts = {n: part_of(n) for n in names if n not in NO_SWEEPS}
    plans = {n: make_plan(part.sweep, False, part.where) for n, part in parts.items()}
    layers = len(layers_of(c for plan in plans.values() for c in plan.cases))
    fixed = {
        "gpu-tests": TESTS_S,
        "precompile": IMPORT_S + layers * COMPILED_PER_LAYER * COMPILE_S / COMPILERS,
        "tune": IMPORT_S + TUNE_S,
        "report": 0.0,  # drawn after each stage
    }
    return {n: fixed[n] if n in fixed else sweep_s(plans[n], device) for n in names}
