"""Clock graph: CUDA graphs of forward and backward, replayed, so that no launch costs the GPU time.

The recipe: eager warm-ups on a side stream, every graph and loss of them deleted, since what autograd keeps of them is
bound to the stream they ran on; then captures in one memory pool on that stream of forward and of
torch.autograd.grad(loss, leaves). That has no AccumulateGrad nodes, and it raises where a leaf is not reached.
Every backward that is replayed follows its forward, which fills the saved memory that backward has since used for
itself.

The events that are timed lie inside the graphs (external=True), so that what it takes to start a graph is outside.
Cold: one graph holds one call, with an event before forward, one between forward and backward, and one after; so there
is no gap between the two, which two launches of a graph would leave (an estimate: 5 to 10 us, where a layer takes 60 to
150). L2 is flushed before each replay, outside the events; then weights and inputs are cold as well, which rotating
inputs would not give, and backward finds L2 as forward has left it. Warm: a graph of forwards and one of backwards,
each of as many calls as take a millisecond, each call with an autograd graph of its own.
"""

import contextlib
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from math import ceil
from typing import TYPE_CHECKING, Any, ClassVar

from bench.timing.base import Sample, Timed, Unsupported
from bench.timing.eager import CudaClock
from bench.timing.graph_nodes import count_nodes
from bench.timing.settings import MeasureSettings
from bench.timing.sleep_kernel import SleepKernel, cycles_per_ms

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from bench.models.work import Out


def gradients(work: Any, out: "Out") -> "tuple[Tensor, ...]":
    """Gradients of `out` for exactly the declared leaves, in their order; .grad is left alone. Frees the graph."""
    import torch

    return torch.autograd.grad(out, [leaf for _, leaf in work.leaves], work.grad_out(out))


@contextmanager
def capturable(work: Any) -> Iterator[None]:
    """Work that can be captured; no garbage collection, which could free CUDA memory in the middle of a capture."""
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        with work.capturable():
            yield
    finally:
        if collecting:
            gc.enable()


class GraphClock(CudaClock):
    """GPU time of forward, backward and both, at all levels; `launches` counts the nodes of a call's graph."""

    name = "graph"
    cannot: ClassVar[dict[str, str]] = {"step": "clock graph does not capture the optimizer's step"}

    def __init__(
        self, device: "torch.device", cold_l2: bool, settings: MeasureSettings | None = None, cuda: Any = None
    ) -> None:
        super().__init__(device, cold_l2, settings, cuda)
        self._stream: Any = None
        self._graphs: list[Any] = []  # of the passes, in the order of their replay
        self._refresh: Any = None  # the graph of what is due after an optimizer step
        self._marks: dict[str, tuple[Any, Any]] = {}  # the first and last event of each pass and of the refresh
        self._between = self._cuda.Event()
        self._sleep_kernel = SleepKernel(self._settings, "block", 0.0)  # a graph's sample takes a millisecond anyway
        self._cycles = 0.0
        self._settled = False
        self.grads: tuple[Tensor, ...] = ()  # what the last replay computed, in the order of work.leaves

    def prepare(self, work: Any, level: str) -> None:
        """Captures. Raises Unsupported with the reason where the work cannot be, torch.OutOfMemoryError as it is."""
        import torch

        super().prepare(work, level)
        if work.uncapturable:
            raise Unsupported(work.uncapturable)
        self._cycles = cycles_per_ms(self._cuda)
        work.clear()
        try:
            with capturable(work):
                self._stream = self._cuda.Stream(self._device)
                self._warm_up(work)
                self._capture(work, 1)
                if not self._cold and (calls := self._calls_to_capture(work)) > 1:
                    self._drop()
                    self._capture(work, calls)
        except torch.OutOfMemoryError:
            raise
        except Exception as e:
            text = " ".join(str(e).split())[:250]
            raise Unsupported(f"capture: {type(e).__name__}: {text}", spoils=True) from e

    def _warm_up(self, work: Any) -> None:
        """Eager calls on the capture's stream: libraries make handles and workspaces for it, Triton its kernels."""
        cuda = self._cuda
        self._stream.wait_stream(cuda.current_stream(self._device))
        with cuda.stream(self._stream):
            for _ in range(self._settings.graph_warmups):
                gradients(work, work.forward())
                work.refresh()
        cuda.current_stream(self._device).wait_stream(self._stream)
        cuda.synchronize(self._device)

    def _capture(self, work: Any, calls: int) -> None:
        """Captures `calls` forwards and their backwards, cold in one graph and warm in one each, and the refresh in
        another."""
        pool = self._cuda.graph_pool_handle()
        outs: list[Out] = []

        def forward() -> None:
            outs.extend(work.forward() for _ in range(calls))

        def backward() -> None:
            while outs:
                self.grads = gradients(work, outs.pop(0))

        if self._cold:
            alone = self._record(self._cuda.graph_pool_handle(), forward=forward)  # to count its nodes, never replayed
            outs.clear()
            counts = [count_nodes(alone.raw_cuda_graph())]
            alone.reset()
            self._graphs = [self._record(pool, forward=forward, backward=backward)]
            counts.append(count_nodes(self._graphs[0].raw_cuda_graph()))
        else:
            self._graphs = [self._record(pool, forward=forward), self._record(pool, backward=backward)]
            counts = [count_nodes(g.raw_cuda_graph()) for g in self._graphs]
        for graph in self._graphs:
            graph.instantiate()
        if work.has_refresh:
            self._refresh = self._record(pool, refresh=work.refresh)
            self._refresh.instantiate()
        self.calls = calls
        first, last = counts
        if first is not None and last is not None:
            whole = last if self._cold else first + last
            found = {"forward": first, "backward": whole - first, "forward-backward": whole}
            self.launches = {p: round(n / calls) for p, n in found.items()}

    def _record(self, pool: Any, **bodies: Callable[[], None]) -> Any:
        """A graph, not yet instantiated, of these bodies one after the other, with events before, between and after
        them; a body's name is the pass that its events time."""
        cuda = self._cuda
        graph = cuda.CUDAGraph(keep_graph=True)
        events = [cuda.Event(enable_timing=True, external=True) for _ in range(len(bodies) + 1)]
        failure: Exception | None = None
        try:
            with cuda.graph(graph, pool=pool, stream=self._stream):
                try:
                    events[0].record()
                    for body, after in zip(bodies.values(), events[1:], strict=True):
                        body()
                        after.record()
                except Exception as e:
                    failure = e
                    raise
        except Exception as e:
            raise failure or e from None  # ending a broken capture raises too, and says less
        self._marks |= dict(zip(bodies, pairwise(events), strict=True))
        return graph

    def _calls_to_capture(self, work: Timed) -> int:
        """As many as take graph_batch_s, by the faster of forward and backward; the first replay uploads the graph."""
        for _ in range(2):
            self._replay(work)
        shortest = min(self._elapsed(p, p) for p in ("forward", "backward"))
        wanted = ceil(self._settings.graph_batch_s * 1e3 / max(shortest, 1e-3))
        return min(wanted, self._settings.graph_max_calls)

    def _replay(self, work: Timed) -> bool:
        """One replay of all. False where backward is a graph of its own and was not queued before forward was done: a
        gap may lie between."""
        self._flush_l2()
        if self._sleep_kernel.ms:
            self._cuda._sleep(round(self._sleep_kernel.ms * self._cycles))
        first, *rest = self._graphs
        first.replay()
        self._between.record()
        for graph in rest:
            graph.replay()
        in_time = not rest or not self._between.query()
        if self._refresh is not None:
            self._refresh.replay()
        self._cuda.synchronize(self._device)
        return in_time

    def settle(self) -> None:
        self._settled = True

    def sample(self, work: Timed, step: bool) -> Sample | None:
        in_time = self._replay(work)
        if self._settled and not self._sleep_kernel.judge(in_time):
            return None
        found = {
            "forward": self._elapsed("forward", "forward"),
            "backward": self._elapsed("backward", "backward"),
            "forward-backward": self._elapsed("forward", "backward"),
        }
        if self._refresh is not None:
            found["refresh"] = self._elapsed("refresh", "refresh") * self.calls
        return {(p, self.name): ms / self.calls for p, ms in found.items()}

    def _elapsed(self, start: str, end: str) -> float:
        """ms from the event before one pass to the event after another."""
        return self._marks[start][0].elapsed_time(self._marks[end][1])

    def _drop(self) -> None:
        self.grads = ()
        for graph in filter(None, [*self._graphs, self._refresh]):
            with contextlib.suppress(RuntimeError):  # the context may be lost; the reason was told before
                graph.reset()
        self._graphs, self._refresh, self._marks = [], None, {}

    def close(self) -> None:
        super().close()
        self._drop()
