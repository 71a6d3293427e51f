"""kernels.tune's timer over a simulated CUDA: one stream for all, errors that name the candidate, times without the
graph's launch."""

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from triton.runtime.errors import OutOfResources

from kernels.lora.bordered_weight import border_of
from kernels.tune import timer as timing
from kernels.tune.candidates import Candidate
from tests.fakecuda import FakeCuda, FakeGraph

FORWARD, BACKWARD = 40e-6, 80e-6  # seconds on the GPU


def candidate(passed: str = "forward", scheme: str = "cublas", **other: Any) -> Candidate:
    given: dict[str, Any] = {"conv1d": False, "bias": False, "dropout": False, "tile": None} | other
    return Candidate(passed, 16, 24, 8, 4, scheme=scheme, **given)


class Layer:
    """lora_linear on a simulated GPU: its backward runs on the stream of its forward, as autograd's does."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda, self.slower = cuda, 1.0
        self.seen: list[tuple[Tensor, dict[str, Any], bool]] = []
        self.failure: Exception | None = None

    def __call__(self, x: Tensor, weight: Tensor, a: Tensor, b: Tensor, **how: Any) -> Tensor:
        self.seen.append((weight, how, border_of(weight, a.shape[0]) is not None))
        if self.failure is not None and self.cuda.capturing is not None:
            raise self.failure
        return _Streamed.apply(x, weight, a, b, self)


class _Streamed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, a: Tensor, b: Tensor, layer: Layer) -> Tensor:
        ctx.stream, ctx.layer = layer.cuda.current, layer
        ctx.save_for_backward(x, a, b)
        layer.cuda.launch(FORWARD * layer.slower)
        return x @ weight.t()

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        ctx.layer.cuda.backward_on(ctx.stream, BACKWARD * ctx.layer.slower)
        x, a, b = ctx.saved_tensors
        return torch.zeros_like(x), None, torch.zeros_like(a), torch.zeros_like(b), None


def timer_of(cuda: FakeCuda, layer: Layer) -> timing.GpuTimer:
    return timing.GpuTimer(cuda, "cpu", layer, clock=cuda.now)


@pytest.mark.parametrize(("passed", "seconds"), [("forward", FORWARD), ("backward", BACKWARD)])
def test_a_time_is_the_gpus_alone(passed: str, seconds: float) -> None:
    cuda = FakeCuda()
    ms = timer_of(cuda, Layer(cuda))(candidate(passed))
    assert ms == pytest.approx(seconds * 1e3), "neither the launch of the graph nor gaps between calls"


def test_the_simulation_refuses_a_backward_from_another_stream() -> None:
    cuda = FakeCuda()
    call = timing.make_call(candidate("backward"), torch.device("cpu"), Layer(cuda))
    call()
    with cuda.graph(cuda.CUDAGraph(keep_graph=True), stream=cuda.Stream()), pytest.raises(RuntimeError, match="906"):
        call()


@pytest.mark.parametrize("layout", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_what_is_timed_has_the_cases_properties(layout: bool, bias: bool) -> None:
    cuda = FakeCuda()
    layer = Layer(cuda)
    timer_of(cuda, layer)(candidate(conv1d=layout, bias=bias, dropout=True, scheme="epilogue"))
    weight, how, border = layer.seen[-1]
    assert weight.shape == (24, 8) and weight.stride() == ((1, 24) if layout else (8, 1))
    assert (how["bias"] is not None) == bias and how["dropout_p"] == 0.1 and how["scheme"] == "epilogue"
    assert not border
    timer_of(cuda, layer)(candidate(conv1d=layout, scheme="bordered"))
    weight, _, border = layer.seen[-1]
    assert border and (weight.stride(1) == 1) != layout
    timer_of(cuda, layer)(candidate("backward", "epilogue_fused_da"))
    assert layer.seen[-1][1]["scheme"] == "cublas/epilogue_fused_da"


@pytest.mark.parametrize("failure", [torch.OutOfMemoryError("no memory"), OutOfResources(300_000, 232_448, "shared")])
def test_no_room_is_no_error(failure: Exception) -> None:
    cuda = FakeCuda()
    layer = Layer(cuda)
    layer.failure = failure
    assert timer_of(cuda, layer)(candidate()) is None


@pytest.mark.parametrize(
    "failure", [RuntimeError("Offset increment outside graph capture"), ValueError("scheme is odd"), KeyError("x")]
)
def test_any_other_failure_ends_the_run_and_names_the_candidate(failure: Exception) -> None:
    cuda = FakeCuda()
    layer = Layer(cuda)
    layer.failure = failure
    with pytest.raises(timing.TimingFailed, match=f"^forward cublas at M 16 N 24 K 8 r 4: {type(failure).__name__}: "):
        timer_of(cuda, layer)(candidate())


def test_twice_as_slow_as_the_best_is_dropped_after_three_replays() -> None:
    cuda = FakeCuda()
    layer = Layer(cuda)
    timer = timer_of(cuda, layer)
    timer(candidate())
    graph_count = len(FakeGraph.made)
    layer.slower = 2.5
    timer(candidate(scheme="epilogue", tile=(128, 128, 32, 4, 4)))
    assert [graph.replays for graph in FakeGraph.made[graph_count:]] == [4], "the first uploads the graph"
    layer.slower = 1.5
    timer(candidate(scheme="epilogue", tile=(64, 64, 64, 4, 4)))
    assert FakeGraph.made[-1].replays >= 6
