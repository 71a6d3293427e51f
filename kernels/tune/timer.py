"""Times a candidate on the current GPU by CUDA graphs."""

import gc
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import torch
from triton.runtime.errors import OutOfResources

from ..lora import lora_linear
from ..lora.bordered_weight import bordered
from ..runtime.dispatch import using_tiles
from ..runtime.schemes import TILED
from ..runtime.tile_tables import Tile
from .candidates import Candidate
from .search import SECONDS_A_CANDIDATE, TimingFailed

OUT_OF_ROOM = (OutOfResources, torch.OutOfMemoryError)
MOST_ROTATIONS = 64
WARM_UP_S = 0.5


class GpuTimer:
    """timer(candidate) -> the median in ms, None where the candidate does not fit the GPU. Raises TimingFailed.

    All that belongs to a candidate happens on one side stream: its tensors, the forward whose backward is captured
    (autograd runs a backward on the stream of its forward, and work on another stream ends a capture: CUDA's error
    906), the warm-up, and the capture. Seeds of dropout are drawn inside the graph, which torch allows of the
    device's own generator. The events are the graph's first and last node, so that what it takes to start a graph
    is outside.
    """

    def __init__(
        self, cuda: Any = torch.cuda, device: str = "cuda", linear: Callable[..., Any] = lora_linear,
        budget_s: float = SECONDS_A_CANDIDATE, clock: Callable[[], float] = time.perf_counter,
    ) -> None:  # fmt: skip
        self._cuda, self._device, self._linear = cuda, torch.device(device), linear
        self._budget_s, self._clock = budget_s, clock
        self._stream: Any = None
        self._best: dict[tuple[object, ...], float] = {}

    def __call__(self, candidate: Candidate) -> float | None:
        try:
            with tiles_given(candidate):
                if self._stream is None:  # the first is timed again and again, until the GPU's clock has risen
                    self._stream, begin = self._cuda.Stream(self._device), self._clock()
                    while self._clock() - begin < WARM_UP_S:
                        self._median_ms(candidate)
                return self._median_ms(candidate)
        except OUT_OF_ROOM:
            return None
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            raise TimingFailed(f"{candidate.describe()}: {type(error).__name__}: {text}") from error

    def _median_ms(self, c: Candidate) -> float:
        begin, cuda = self._clock(), self._cuda
        size = 2 * (c.m * c.k + c.m * c.n + c.n * c.k)
        rotations = 2 * cuda.get_device_properties(self._device).L2_cache_size // size + 1
        self._stream.wait_stream(cuda.current_stream(self._device))
        with cuda.stream(self._stream):
            calls = [make_call(c, self._device, self._linear) for _ in range(min(MOST_ROTATIONS, rotations))]
            for _ in range(2):
                for call in calls:
                    call()
        cuda.synchronize(self._device)
        graph, first, last = self._capture(calls)
        try:
            return self._replays(c, graph, first, last, begin, len(calls))
        finally:
            graph.reset()

    def _capture(self, calls: list[Callable[[], Any]]) -> tuple[Any, Any, Any]:
        cuda = self._cuda
        graph = cuda.CUDAGraph(keep_graph=True)
        first, last = (cuda.Event(enable_timing=True, external=True) for _ in range(2))
        failure: BaseException | None = None
        collecting = gc.isenabled()
        gc.disable()  # it could free CUDA memory in the middle of a capture
        try:
            with cuda.graph(graph, stream=self._stream):
                try:
                    first.record()
                    for call in calls:
                        call()
                    last.record()
                except BaseException as error:  # an interrupt too: what ends the capture must not hide it
                    failure = error
                    raise
        except Exception as error:
            raise failure or error from None  # ending a broken capture raises too, and says less
        finally:
            if collecting:
                gc.enable()
        graph.instantiate()
        return graph, first, last

    def _replays(self, c: Candidate, graph: Any, first: Any, last: Any, begin: float, calls: int) -> float:
        """Replays for the candidate's time, 5 times at least, but 3 where it is twice as slow as the best so far."""
        best = self._best.get(c.case, float("inf"))
        graph.replay()  # uploads the graph
        self._cuda.synchronize(self._device)
        times: list[float] = []
        while len(times) < 5 or (self._clock() - begin < self._budget_s and len(times) < 200):
            graph.replay()
            self._cuda.synchronize(self._device)
            times.append(first.elapsed_time(last) / calls)
            if len(times) == 3 and median(times) > 2 * best:
                break
        self._best[c.case] = min(best, median(times))
        return median(times)


def tiles_given(c: Candidate) -> Any:
    """The context in which the candidate's scheme runs with its tile."""
    kernel = TILED.get(c.scheme)
    return using_tiles({} if kernel is None or c.tile is None else {kernel: Tile(*c.tile, "timed")})


def make_call(c: Candidate, device: torch.device, linear: Callable[..., Any] = lora_linear) -> Callable[[], Any]:
    """What is timed, on tensors of its own and the current stream: a forward, or the backward of one that has run."""
    make = partial(torch.randn, device=device, dtype=torch.bfloat16)
    x = make(c.m, c.k, requires_grad=True)
    weight = make(c.k, c.n).t() if c.conv1d else make(c.n, c.k)
    weight = weight / c.k**0.5
    a, b = make(c.rank, c.k, requires_grad=True), make(c.n, c.rank, requires_grad=True)
    bias = make(c.n) if c.bias else None
    border = None
    if c.scheme == "bordered":
        weight, border = bordered(weight, c.rank)
    p = 0.1 if c.dropout else 0.0
    scheme = c.scheme if c.passed == "forward" else f"cublas/{c.scheme}"

    def forward(_: Any = border) -> Any:  # holds the border, which lives as long as somebody does
        return linear(x, weight, a, b, scale=2.0, bias=bias, dropout_p=p, scheme=scheme)

    if c.passed == "forward":
        return forward
    return partial(torch.autograd.grad, forward(), (x, a, b), make(c.m, c.n), retain_graph=True)
