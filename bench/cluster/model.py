"""What comparisons take on the wall, by the rules of a measurement and the speed of a device. Nothing is measured here.

What the rules say (warm-up, rounds, stopping, budgets, who fits beside whom) is taken from bench.timing.duration and
the scheduler. What they do not say, how fast a call runs and what a process costs, is an ESTIMATE below: the time of a
call is its roofline time over the share of the peak that such a call is expected to reach.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from bench.case import Case
from bench.case.clocks import CLOCKS
from bench.devices import ELSEWHERE, Device
from bench.methods.registry import impl_of, trainable_params, unsupported
from bench.roofline.memory import need, too_large
from bench.roofline.peaks import Peaks, peaks_of
from bench.roofline.roofline import compulsory_bytes, flops, roofline_ms
from bench.runner.fit import fits
from bench.runner.plan import baseline_of
from bench.sweeps.expand import Plan
from bench.timing.duration import Pace, alone_s, rounds_s
from bench.timing.energy import LEAD_S, LEAST_S

# Estimates, in seconds unless said otherwise.
BUILD_S, BUILD_A_BYTE_S = {"linear": 0.05, "block": 0.3, "model": 0.5}, 0.1e-9  # random weights of a case
CAPTURE_S = {"linear": 0.1, "block": 0.3, "model": 1.5}
TURN_S = {"linear": 0.004, "block": 0.01, "model": 0.03}  # of a block: NVML, memory given back and taken again
BLOCK_LAUNCHES_S = {"full": 0.5e-3, "lora": 1.0e-3, "paca": 0.6e-3}  # host's time of a decoder block, both passes
OTHER_LAUNCHES_S = 1.0e-3  # of a method that is not among these
LAYER_HOST_S = 150e-6  # the same of one layer, and what a sample costs beside its call
KERNELS_S = {"linear": 4.0, "block": 16.0, "model": 16.0}  # Triton's compiler, for our kernels that no cache has
JITTER = {"eager": 0.010, "graph": 0.003, "device": 0.003, "cpu-time": 0.05}  # of a ratio by round, and of a sample

# Of a CPU's one thread, and of a GPU whose peaks are not in gpus.yaml: about an A100.
CPU = Peaks("cpu", "", 0, 0.06, 0.06, 0.06, 0.01, 0.0, "one thread of an AMD EPYC, in GEMMs of 64 tokens")
UNKNOWN = Peaks("", "", 108, 300, 300, 19, 1.5, 40, "about an A100")


@dataclass(frozen=True)
class Board:
    """How fast a device is expected to work; seconds unless said otherwise."""

    on_cpu: bool
    peaks: Peaks
    share: float  # of the peaks
    import_s: float  # of all workers, who import side by side
    context_s: float  # of each of them
    ceilings_s: float  # once a record
    check_s: Mapping[str, float]  # by level, first; a model's second length is the same check
    again_s: Mapping[str, float]  # after timing
    check_calls: float  # calls of at most 64 tokens in the first check, and half as many in the second, on top
    compile_s: Mapping[str, float]  # torch.compile by level, each case anew


def board_of(device: Device) -> Board:
    """What is expected of a device."""
    levels = ("linear", "block", "model")

    def by_level(*seconds: float) -> dict[str, float]:
        return dict(zip(levels, seconds, strict=True))

    if device.is_cpu:
        # Two cores. The checks of Table 1's blocks and of the peers' layers took 0.4 s and three calls for each case.
        checks = by_level(0.2, 0.2, 0.2)
        return Board(True, CPU, 1.0, 2.0, 3.0, 1.0, checks, checks, 3, by_level(3, 10, 60))
    checks, again = by_level(0.7, 1.5, 2.5), by_level(0.3, 0.5, 1.0)
    peaks = peaks_of(device.name, device.sm_count) or UNKNOWN
    return Board(False, peaks, 0.45, 8.0, 1.5, 3.0, checks, again, 0, by_level(20, 40, 120))


def pace(case: Case, plan: Plan, board: Board, clock: str) -> Pace:
    """What a case's samples are expected to take under a clock."""
    peaks = board.peaks
    work_s = _work_s(case, peaks) / board.share
    host_s = BLOCK_LAUNCHES_S.get(case.method, OTHER_LAUNCHES_S) * case.blocks or LAYER_HOST_S
    flush_s = 2 * (peaks.l2_mib or 0) * 2**20 / (peaks.memory_tbs * 1e12) if case.l2 == "cold" else 0.0
    one = work_s if CLOCKS[clock].gpu_work else max(work_s, host_s)
    parts = [one]
    if "step" in plan.passes and not CLOCKS[clock].gpu_work:
        parts.append(case.micro_steps * one + 16 * trainable_params(case) / (peaks.memory_tbs * 1e12))
    return Pace(tuple(parts), flush_s + LAYER_HOST_S)


def _work_s(case: Case, peaks: Peaks) -> float:
    """Of forward and backward at these peaks."""
    if case.level == "linear":
        least_ms = roofline_ms(case, "forward-backward", peaks) or 0.0
        moved: float = compulsory_bytes(case, "forward-backward") or 0
    else:
        a_token, a_pair, fixed, moved_a_token = _by_size(
            replace(case, impl="eager", alpha=1.0, dropout=0.0, batch=1, seq=1)  # what the closed forms do not ask for
        )
        multiplied = a_token * case.tokens + a_pair * case.tokens * case.seq
        least_ms = multiplied / (peaks.tflops(case.precision) * 1e9)
        moved = fixed + moved_a_token * case.tokens
    return max(least_ms / 1e3, moved / (peaks.memory_tbs * 1e12))


@cache
def _by_size(one: Case) -> tuple[float, float, float, float]:
    """FLOPs of forward and backward by token and by pair of tokens, and bytes in any case and by token, of a case of
    any size. The closed forms of a model take milliseconds, and a grid has thousands of sizes; only what embeddings
    read does not go with the tokens."""
    first, second = (flops(replace(one, seq=seq), "forward-backward") for seq in (1, 2))
    if first is None or second is None:  # no closed form: two FLOPs forward and four backward for each weight and token
        assert one.shape is not None
        return 6.0 * (one.shape.block_params if one.level == "block" else one.shape.num_params), 0.0, 0.0, 0.0
    a_pair = (second - 2 * first) / 2
    few, many = (compulsory_bytes(replace(one, seq=seq), "forward-backward") or 0 for seq in (256, 4096))
    moved_a_token = (many - few) / (4096 - 256)
    return first - a_pair, a_pair, few - 256 * moved_a_token, moved_a_token


def _sample(case: Case, call: Pace) -> Pace:
    """Of a whole sample: a call in each stage."""
    n = len(case.stages)
    return Pace(tuple(n * part for part in call.parts), n * call.beside)


PaceOf = Callable[[Case, str], Pace]  # of a case under a clock


class Stages:
    """What comparisons take, one after the other, in processes that stay."""

    def __init__(self, plan: Plan, device: Device, board: Board, kernels: bool = True) -> None:
        """kernels: whether our kernels must be compiled."""
        self._plan, self._device, self._board, self._kernels = plan, device, board, kernels
        self._checked: set[tuple[object, ...]] = set()

    def compare(self, cases: Sequence[Case], paces: PaceOf) -> dict[Case, float]:
        """Seconds of each case of a comparison, without the start of processes."""
        found = dict.fromkeys(cases, 0.0)
        for seats, rounds in self._together(cases):
            for case, seconds in zip(seats, self._seats_s(seats, rounds, paces), strict=True):
                found[case] += seconds
        return found

    def _together(self, cases: Sequence[Case]) -> Iterator[tuple[Sequence[Case], bool]]:
        """The cases that are live at once, as Scheduler seats them, and whether they take turns."""
        step = "step" in self._plan.passes
        base = baseline_of(cases)
        # The memory of a CPU that is free is known only there and then.
        if base is None or self._board.on_cpu or fits(cases, step, self._device):
            yield cases, len(cases) > 1
            return
        others = [c for c in cases if c is not base]
        pairs = [c for c in others if fits([base, c], step, self._device)]
        yield from (([base, c], True) for c in pairs)
        yield from (([c], False) for c in others if c not in pairs)
        if not pairs:
            yield [base], False

    def _seats_s(self, cases: Sequence[Case], rounds: bool, paces: PaceOf) -> list[float]:
        settings, level, board = self._plan.settings, cases[0].level, self._board
        found = [self._beside_s(case, paces) for case in cases]
        for clock in self._plan.clocks:
            if clock == "device" and level == "model":  # refused at once
                continue
            each = [_sample(c, paces(c, clock)) for c in cases]
            if rounds and CLOCKS[clock].in_rounds:
                more = rounds_s(each, settings, level, JITTER[clock], TURN_S[level], board.on_cpu)
            else:
                capture_s = CAPTURE_S[level] if clock == "graph" else 0.0
                more = [alone_s(p, settings, level, JITTER[clock]) + capture_s for p in each]
            energy = settings.energy and clock == "eager" and level != "linear"
            energy_s = [(LEAD_S + LEAST_S) * (energy and len(c.stages) == 1) for c in cases]
            found = [a + b + c for a, b, c in zip(found, more, energy_s, strict=True)]
        return found

    def _beside_s(self, case: Case, paces: PaceOf) -> float:
        """To build, compile and check a case."""
        board, level = self._board, case.level
        what = (case.model, case.layer, case.training) if level == "model" else (case,)
        seconds = board.again_s[level] + (board.check_s[level] if what not in self._checked else 0.0)
        if board.check_calls:
            small = min(1.0, 64 / case.tokens) * min(1.0, 2 / max(case.blocks, 1))
            seconds += board.check_calls * small * paces(case, self._plan.clocks[0]).first
        if case.compiles:
            seconds += board.compile_s[level]
        if impl_of(case).tuned and self._kernels and what not in self._checked:
            seconds += KERNELS_S[level]
        self._checked.add(what)
        return seconds + BUILD_S[level] + BUILD_A_BYTE_S * need(case, "step" in self._plan.passes).at_least


def runnable(plan: Plan, device: Device) -> list[Case]:
    """The cases that a device does not refuse. Of a GPU elsewhere it is not asked what is installed here."""
    kind = "cpu" if device.is_cpu else "cuda"
    there = [c for c in plan.cases if device.index == ELSEWHERE or not unsupported(c, kind)]
    return [c for c in there if not too_large(c, "step" in plan.passes, device.memory_mib)]


def start_s(cases: Iterable[Case], board: Board) -> float:
    """The processes of a run, one for each way in which these cases train."""
    return board.import_s + board.context_s * len({(c.method, c.impl, c.trainable_layers, c.options) for c in cases})
