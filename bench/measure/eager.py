"""Clock eager: events around the calls as a training script makes them, and the host's time from the same samples."""

from time import perf_counter
from typing import TYPE_CHECKING, Any

from bench.measure.clocks import Clock, Sample, Timed
from bench.measure.settings import MeasureSettings

if TYPE_CHECKING:
    import torch

# From which of an iteration's events to which a pass goes.
SPANS = {"forward": (0, 1), "backward": (1, 2), "forward-backward": (0, 2), "step": (0, 3), "refresh": (4, 5)}


class CudaClock(Clock):
    """What the clocks on a GPU share: the device, and the flush of its L2 cache."""

    def __init__(
        self, device: "torch.device", cold_l2: bool, settings: MeasureSettings | None = None, cuda: Any = None
    ) -> None:
        super().__init__()
        if cuda is None:
            import torch.cuda as cuda
        self._cuda = cuda
        self._device = device
        self._settings = settings or MeasureSettings()
        self._cold = cold_l2
        self._flush: Any = None
        self._events = [cuda.Event(enable_timing=True) for _ in range(6)]

    def prepare(self, work: Any, level: str) -> None:
        if self._cold:
            import torch

            size = 2 * self._cuda.get_device_properties(self._device).L2_cache_size
            self._flush = torch.empty(size, dtype=torch.int8, device=self._device)

    def close(self) -> None:
        self._flush = None

    def _flush_l2(self) -> None:
        """Writes over the whole L2 cache where the case is cold, and waits until the GPU is idle."""
        if self._flush is not None:
            self._flush.zero_()
        self._cuda.synchronize(self._device)


class EagerClock(CudaClock):
    """What a training script sees, and what the paper timed: no backlog in the stream, so gaps between launches count.

    The host's time for the same calls is under the clock `host`. Events around backward are right although it runs on
    the autograd thread: it works on the stream of the forward, and returns when all of it is queued.
    """

    name = "eager"

    def sample(self, work: Timed, step: bool) -> Sample | None:
        host = self._queue(work, step)
        self._cuda.synchronize(self._device)
        return self._elapsed(work, step) | {(p, "host"): ms for p, ms in host.items()}

    def _queue(self, work: Timed, step: bool) -> dict[str, float]:
        """Queues one iteration with its events; the host's ms for each pass. Nothing in it waits for the GPU."""
        e = self._events
        work.clear()
        self._flush_l2()
        self._open()
        e[0].record()
        t0 = perf_counter()
        out = work.forward()
        t1 = perf_counter()
        e[1].record()
        work.backward(out)
        t2 = perf_counter()
        e[2].record()
        host = {"forward": t1 - t0, "backward": t2 - t1, "forward-backward": t2 - t0}
        if step:
            work.optimizer_step()
            host["step"] = perf_counter() - t0
            e[3].record()
        self._closed()
        if work.has_refresh:
            e[4].record()
            work.refresh()
            e[5].record()
        return {p: s * 1e3 for p, s in host.items()}

    def _open(self) -> None:
        """What goes into the stream before the first event: nothing here."""

    def _closed(self) -> None:
        """What is due when all passes are queued: nothing here."""

    def _elapsed(self, work: Timed, step: bool) -> Sample:
        """ms between the events, once all have come."""
        e, left_out = self._events, {p for p, there in (("step", step), ("refresh", work.has_refresh)) if not there}
        return {(p, self.name): e[a].elapsed_time(e[b]) for p, (a, b) in SPANS.items() if p not in left_out}
