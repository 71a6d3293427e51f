"""A GPU that is only a clock: torch.cuda with one stream, events, sleeps, a launch queue and graphs, simulated."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

RATE = 1.9e9  # cycles a second


class FakeCuda:
    """Stands for the module torch.cuda. Times in seconds; the host and the GPU each have their own."""

    def __init__(self, depth: int = 1000) -> None:
        self.host = 0.0
        self.free = 0.0  # when the GPU is done with all that is queued
        self.depth = depth
        self.ends: list[float] = []  # of what may still be queued
        self.capturing: FakeGraph | None = None
        self.current = self.Stream()  # the stream that is queued on
        self.sleeps: list[float] = []
        self.Event = lambda **options: FakeEvent(self, **options)
        self.CUDAGraph = lambda keep_graph=False: FakeGraph(self)

    def now(self) -> float:
        return self.host

    def launch(self, gpu: float, host: float = 5e-6) -> None:
        """Queues work of `gpu` seconds, which takes the host `host` seconds, and longer where the queue is full."""
        if self.capturing is not None:
            self.capturing.nodes.append(lambda: self._run(gpu))
            self.capturing.launches += 1
            return
        self.host += host
        self.ends = [end for end in self.ends if end > self.host]
        if len(self.ends) >= self.depth:
            self.host = self.ends[-self.depth]
        self.ends.append(self._run(gpu))

    def _run(self, gpu: float) -> float:
        self.free = max(self.free, self.host) + gpu
        return self.free

    def _sleep(self, cycles: int) -> None:
        assert isinstance(cycles, int)
        self.sleeps.append(cycles / RATE)
        self.launch(cycles / RATE, host=3e-6)

    def synchronize(self, device: Any = None) -> None:
        assert self.capturing is None, "a capture must not synchronize"
        self.host = max(self.host, self.free)

    def get_device_properties(self, device: Any) -> Any:
        return SimpleNamespace(L2_cache_size=512)

    def Stream(self, device: Any = None) -> Any:
        return SimpleNamespace(wait_stream=lambda other: None)

    def current_stream(self, device: Any = None) -> Any:
        return self.current

    @contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    def backward_on(self, stream: Any, gpu: float) -> None:
        """Queues the backward of a forward that ran on `stream`: autograd runs it there, whatever is captured."""
        if self.capturing is not None and stream is not self.current:
            raise RuntimeError("CUDA error: operation would make the legacy stream depend on a capturing stream (906)")
        self.launch(gpu)

    def graph_pool_handle(self) -> int:
        return 1

    @contextmanager
    def graph(self, graph: "FakeGraph", pool: Any = None, stream: Any = None) -> Iterator[None]:
        self.capturing = graph
        try:
            with self.stream(stream or self.Stream()):
                yield
        except Exception:
            raise RuntimeError("operation failed due to a previous error during capture") from None
        finally:
            self.capturing = None


class FakeEvent:
    def __init__(self, cuda: FakeCuda, enable_timing: bool = False, external: bool = False) -> None:
        self.cuda, self.external, self.at = cuda, external, 0.0

    def record(self) -> None:
        if self.cuda.capturing is not None:
            assert self.external, "an ordinary event cannot be timed in a graph"
            self.cuda.capturing.nodes.append(self._set)
        else:
            self._set()

    def _set(self) -> None:
        self.at = max(self.cuda.free, self.cuda.host)

    def query(self) -> bool:
        return self.cuda.host >= self.at

    def elapsed_time(self, end: "FakeEvent") -> float:
        assert self.query() and end.query(), "asked before it came"
        return (end.at - self.at) * 1e3


class FakeGraph:
    """Replays what was launched while it was captured, at once and without gaps."""

    made: "list[FakeGraph]" = []  # noqa: RUF012

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.nodes: list[Callable[[], Any]] = []
        self.launches = 0
        self.instantiated = False
        self.replays = 0
        self.replay_host = 10e-6
        FakeGraph.made.append(self)

    def raw_cuda_graph(self) -> int:
        return FakeGraph.made.index(self)

    def instantiate(self) -> None:
        self.instantiated = True

    def replay(self) -> None:
        assert self.instantiated
        self.replays += 1
        self.cuda.host += self.replay_host
        for node in self.nodes:
            node()

    def reset(self) -> None:
        self.nodes = []
