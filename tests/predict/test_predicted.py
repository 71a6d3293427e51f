"""Prices and predictions: two queues, parts that add up, errors that cancel in a ratio."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from bench.predict.boards import Board, boards
from bench.predict.ops import Op, Trace
from bench.predict.predicted import HOST_OPERATORS, Host, Predicted, as_split, price, ratio
from bench.predict.price import gpu_us
from bench.predict.rates import gemm_us
from bench.record.causes import sentence
from bench.record.stats import Estimate
from tests.predict.made_up import made_up

ERRORS = {"gemm": (0.1, 0.2), "memory": (0.3, 0.5), "attention": (0.25, 0.4)}
BOARD = made_up(errors=ERRORS)
GEMM = Op("aten::mm", "base_forward", "gemm", (1024, 1024, 1024, 1))
DX = replace(GEMM, cause="base_dx")
ADD = Op("aten::add", "elementwise", "elementwise", bytes=8e6)
ATTENTION = Op("aten::flash", "attention", "attention", flops=1e9)
LORA = Op("lorabench::lora_forward", "fused", "lora_forward", (1024, 1024, 1024, 8))
TRACE = Trace({"forward": (ADD, GEMM, ATTENTION) * 3, "backward": (DX, ADD) * 4, "optimizer": (ADD,)})


def one(trace: Trace, pass_: str = "forward", clock: str = "graph", board: Board = BOARD, **more: Any) -> Predicted:
    return price(trace, board, (pass_,), **more)[pass_, clock]


def host(us: float) -> Host:
    return Host(us, us, "given")


def simulated(gpu: list[float], cost: list[float], start: float) -> float:
    """The two queues, one operator after another."""
    issued = ended = 0.0
    for mine, of_host in zip(gpu, cost, strict=True):
        issued += of_host
        ended = max(ended, issued + start) + mine
    return ended


@pytest.mark.parametrize("us", [0.0, 3.0, 8.0, 100.0])
def test_the_gpu_waits_for_the_host_and_for_the_operator_before(us: float) -> None:
    generator = np.random.default_rng(3)
    kinds = [replace(ADD, bytes=float(b)) for b in generator.integers(1e3, 4e7, 40)]
    ops = tuple(kinds[i] for i in generator.integers(0, 40, 500))
    found = one(Trace({"forward": ops}), clock="eager", host=host(us))
    queued = dict(zip(kinds, gpu_us(BOARD, kinds)[0], strict=True))
    expected = simulated([queued[op] for op in ops], [us] * 500, BOARD.launch_us)
    assert found.ms * 1e3 == pytest.approx(expected)
    assert found.launch_bound == (expected - sum(queued[op] for op in ops) > 0.05 * found.gpu_ms * 1e3)


def test_above_the_limit_of_the_host_a_pass_is_launch_bound() -> None:
    limit = one(TRACE, clock="eager", host=host(1.0)).host_limit_us
    assert not one(TRACE, clock="eager", host=host(0.99 * limit)).launch_bound
    assert one(TRACE, clock="eager", host=host(1.01 * limit)).launch_bound


def test_parts_add_up_and_a_step_is_its_micro_steps_and_the_optimizer() -> None:
    found = price(TRACE, BOARD, ("forward", "backward", "forward-backward", "step"), 4, host(20.0))
    for predicted in found.values():
        assert sum(predicted.parts.values()) == pytest.approx(predicted.ms)
    ms = {pass_: found[pass_, "graph"].ms for pass_, _ in found}
    assert ms["forward-backward"] == pytest.approx(ms["forward"] + ms["backward"])
    alone = one(Trace({"forward": TRACE.phases["optimizer"]})).ms
    assert ms["step"] == pytest.approx(4 * ms["forward-backward"] + alone)


def test_between_forward_and_backward_nothing_waits() -> None:
    found = price(TRACE, BOARD, ("forward", "backward", "forward-backward"), host=host(15.0))
    apart = found["forward", "eager"].ms + found["backward", "eager"].ms
    assert found["forward-backward", "eager"].ms < apart


def test_without_a_host_only_the_graph_is_predicted() -> None:
    assert list(price(TRACE, BOARD, ("forward",))) == [("forward", "graph")]


def test_nothing_is_slower_on_a_board_that_has_more_of_everything() -> None:
    more = replace(BOARD, sms=200, tflops=200.0, fp32_tflops=20.0, bandwidth_tbs=4.0, l2_mib=80.0, l2_tbs=20.0)
    for clock in ("graph", "eager"):
        assert one(TRACE, clock=clock, board=more, host=host(1.0)).ms < one(TRACE, clock=clock, host=host(1.0)).ms


def test_a_slower_host_is_never_faster() -> None:
    times = [one(TRACE, clock="eager", host=host(us)).ms for us in (0.0, 1.0, 5.0, 25.0)]
    assert times == sorted(times)


def test_what_both_have_cancels_in_a_ratio() -> None:
    """Half of the time is a GEMM that both have: what is left is the error of what one has more."""
    base, of = one(Trace({"forward": (GEMM,) * 9})), one(Trace({"forward": (*(GEMM,) * 9, ADD)}))
    assert ratio(base, base).half == (0.0, 0.0)
    found = ratio(of, base)
    assert found.value == pytest.approx(of.ms / base.ms)
    share = 1 - base.ms / of.ms
    of_both = [(g**2 + m**2) ** 0.5 for g, m in zip(ERRORS["gemm"], ERRORS["memory"], strict=True)]
    assert found.half == pytest.approx([share * half for half in of_both])
    low, high = found.interval(80)
    assert low < found.value < high < found.interval(90)[1]


def test_times_have_the_error_of_their_kind() -> None:
    assert one(Trace({"forward": (GEMM,)})).half == ERRORS["gemm"]
    assert one(Trace({"forward": (ADD, ADD)})).half == ERRORS["memory"]
    both = one(Trace({"forward": (GEMM, ADD)})).half[0]
    assert both < ERRORS["memory"][0]


def test_a_gemm_thinner_than_all_that_was_published_is_less_certain() -> None:
    thin = replace(GEMM, sizes=(1024, 8, 1024, 1))
    assert one(Trace({"forward": (thin,)})).half[0] > 2 * ERRORS["gemm"][0]


@pytest.mark.parametrize("key", list(boards()))
def test_our_kernels_have_a_price_on_every_board_and_none_below_the_gemm(key: str) -> None:
    board = boards()[key]
    for dropout in (False, True):
        for m, n, k in ((2048, 4800, 1600), (4096, 2048, 2048), (512, 256, 2048)):
            forward = Op("f", "fused", "lora_forward", (m, n, k, 8), dropout=dropout)
            backward = replace(forward, kind="lora_backward")
            of_columns = Op("p", "branch", "paca_product", (m, n, 16), bytes=2.0 * m * n)
            in_queue, in_graph = gpu_us(board, [forward, backward, of_columns])
            product = [gemm_us(board, m, n, k), gemm_us(board, m, k, n), 0]
            assert np.isfinite(in_queue).all() and (in_graph <= in_queue).all()
            assert (in_graph >= product).all()


def test_a_call_of_our_kernels_costs_the_host_more_than_an_operator() -> None:
    found = one(Trace({"forward": (LORA,) * 50}), clock="eager", board=boards()["a100"], host=host(1000.0))
    assert found.host_ms == 50 * HOST_OPERATORS["lora_forward"]
    assert found.ms == pytest.approx(found.host_ms, rel=0.01)


def test_a_rank_above_the_tables_is_priced_as_three_products() -> None:
    wide = replace(LORA, sizes=(1024, 1024, 1024, 256))
    backward = replace(wide, kind="lora_backward")
    assert (
        gpu_us(boards()["a100"], [wide, backward])
        > gpu_us(boards()["a100"], [LORA, replace(LORA, kind="lora_backward")])
    ).all()


def test_a_predicted_difference_is_told_by_its_causes() -> None:
    base, of = one(Trace({"forward": (GEMM,) * 9})), one(Trace({"forward": (*(GEMM,) * 9, ADD)}))
    by = ratio(of, base)
    told = sentence("LoRA", "Full-FT", "forward", Estimate(by.value, *by.interval(80)), as_split(of), as_split(base))
    assert "100 % is branch elementwise" in told
