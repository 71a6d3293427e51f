"""Work of a case on the simulated GPU: launches that take a time there and a time on the host."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from bench.timing.clocks import make_clock
from bench.timing.sampler import measure
from bench.timing.settings import MeasureSettings
from tests.fakecuda import FakeCuda

CPU = torch.device("cpu")
SETTINGS = MeasureSettings(min_samples=8, min_time_s=1e-6, wall_s=2.0, warmup_s=0.001)
PASSES = ("forward", "backward", "forward-backward")


class _Kernels(torch.autograd.Function):
    """y = 2 w, with launches on the simulated GPU in both directions."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, work: "FakeWork") -> Tensor:
        ctx.work = work
        work.run(work.forward_launches)
        return 2 * w

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        ctx.work.run(ctx.work.backward_launches)
        return 2 * grad, None


class FakeWork:
    """Forward and backward as lists of launches: (seconds on the GPU, seconds on the host)."""

    def __init__(self, cuda: FakeCuda, forward: int = 10, backward: int = 20, gpu: float = 2e-6, host: float = 1e-5):
        self.cuda = cuda
        self.forward_launches = [(gpu, host)] * forward
        self.backward_launches = [(gpu, host)] * backward
        self.weight = torch.ones(3, requires_grad=True)
        self.leaves = [("weight", self.weight)]
        self.autocast_cache = True
        self.has_refresh = False
        self.uncapturable: str | None = None
        self.micro_steps = 1

    def run(self, launches: list[tuple[float, float]]) -> None:
        for gpu, host in launches:
            self.cuda.launch(gpu, host)

    @contextmanager
    def capturable(self) -> Iterator[None]:
        self.autocast_cache = False
        try:
            yield
        finally:
            self.autocast_cache = True

    def clear(self) -> None:
        self.weight.grad = None

    ready = clear

    def forward(self) -> Tensor:
        return _Kernels.apply(self.weight, self)

    def backward(self, out: Tensor) -> None:
        out.backward(self.grad_out(out))

    def grad_out(self, out: Tensor) -> Tensor:
        return torch.ones_like(out)

    def optimizer_step(self) -> None:
        self.run([(1e-6, 1e-6)])

    def refresh(self) -> None:
        if self.has_refresh:
            self.run([(3e-6, 1e-6)])


def timed(
    name: str, work: FakeWork, passes: tuple[str, ...] = PASSES, cold: bool = False, level: str = "linear"
) -> Any:
    clock = make_clock(name, CPU, cold, SETTINGS, work.cuda)
    return measure(work, clock, passes, level, SETTINGS, now=work.cuda.now, sleep=lambda s: None)


def medians(found: Any) -> dict[tuple[str, str], float]:
    return {key: sorted(s)[len(s) // 2] for key, s in found.samples_ms.items()}
