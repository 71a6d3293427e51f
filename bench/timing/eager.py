"""Clock eager: events around the calls as a training script makes them, and the host's time from the same samples."""

from time import perf_counter
from typing import TYPE_CHECKING, Any

from bench.timing.base import Clock, Sample, Timed
from bench.timing.settings import MeasureSettings

if TYPE_CHECKING:
    import torch

# From which of a sample's events to which a pass goes: in a micro-step, and in a whole optimizer step.
MICRO_STEP = {"forward": (0, 1), "backward": (1, 2), "forward-backward": (0, 2), "refresh": (3, 4)}
WHOLE_STEP = {"step": (0, 3), "optimizer": (1, 2), "refresh": (2, 3)}


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
        self._level = "linear"
        self._flush: Any = None
        self._events = [cuda.Event(enable_timing=True) for _ in range(5)]

    def prepare(self, work: Any, level: str) -> None:
        self._level = level
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
    """What a training script sees, and what the paper timed. Nothing runs first, so gaps between launches count.

    The host's time for the same calls is under the clock `host`. Events around backward are right although it runs on
    the autograd thread: it works on the stream of the forward, and returns when all of it is queued.
    """

    name = "eager"

    def sample(self, work: Timed, step: bool) -> Sample | None:
        host = self._queue(work, step)
        self._cuda.synchronize(self._device)
        return self._elapsed(work, step) | {(p, "host"): ms for p, ms in host.items()}

    def _queue(self, work: Timed, step: bool) -> dict[str, float]:
        """Queues one sample with its events; the host's ms for each pass. Nothing in it waits for the GPU."""
        work.clear() if step else work.ready()
        self._flush_l2()
        self._open()
        host = self._whole_step(work) if step else self._micro_step(work)
        return {p: s * 1e3 for p, s in host.items()}

    def _micro_step(self, work: Timed) -> dict[str, float]:
        e = self._events
        e[0].record()
        t0 = perf_counter()
        out = work.forward()
        t1 = perf_counter()
        e[1].record()
        work.backward(out)
        t2 = perf_counter()
        e[2].record()
        self._closed()
        if work.has_refresh:
            e[3].record()
            work.refresh()
            e[4].record()
        return {"forward": t1 - t0, "backward": t2 - t1, "forward-backward": t2 - t0}

    def _whole_step(self, work: Timed) -> dict[str, float]:
        e = self._events
        e[0].record()
        t0 = perf_counter()
        for _ in range(work.micro_steps):
            work.backward(work.forward())
        e[1].record()
        work.optimizer_step()
        e[2].record()
        work.refresh()
        took = perf_counter() - t0
        e[3].record()
        self._closed()
        return {"step": took}

    def _open(self) -> None:
        """What goes into the stream before the first event: nothing here."""

    def _closed(self) -> None:
        """What is due when all passes are queued: nothing here."""

    def _elapsed(self, work: Timed, step: bool) -> Sample:
        """ms between the events, once all have come."""
        e, spans = self._events, WHOLE_STEP if step else MICRO_STEP
        there = {p: span for p, span in spans.items() if p != "refresh" or work.has_refresh}
        return {(p, self.name): e[a].elapsed_time(e[b]) for p, (a, b) in there.items()}
