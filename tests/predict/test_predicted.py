"""Passes on a board with round numbers by hand, on the real boards by what no machine can do, and their intervals."""

import sys
from dataclasses import replace
from math import hypot
from subprocess import check_output

import pytest

from bench.causes.attribution import PHASES
from bench.predict import predicted
from bench.predict.boards import boards
from bench.predict.ops import Op, Trace
from bench.predict.predicted import HOST_HALF, OPERATOR_HALF, Host, Predicted, as_split, price, ratio
from bench.record.causes import sentence
from bench.record.stats import Estimate
from tests.conftest import ROOT
from tests.predict.made_up import made_up
from tests.predict.traces import ADAMW, ALL, ATTENTION, BASE, BRANCH, CAST, LORA, NORM, a_trace

KEYS = sorted(boards())
FAST, SLOW = Host(5.0, 6.0, "given"), Host(60.0, 60.0, "given")
PASSES = tuple(PHASES)


@pytest.fixture(autouse=True)
def _by_operators_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half widths by hand are those before they are widened for whole models."""
    for quantity in predicted.MODEL_FACTOR:
        monkeypatch.setitem(predicted.MODEL_FACTOR, quantity, 1.0)


def forward(*ops: Op, host: Host = FAST, clock: str = "eager", **board: object) -> Predicted:
    return price(Trace({"forward": ops}), made_up(**board), ["forward"], host=host)["forward", clock]


def test_a_graph_takes_the_sum_of_its_kernels() -> None:
    """4e7 bytes at 0.8 of 2e6 a microsecond, 2e7 at half of it, and 1 us each."""
    found = forward(CAST, NORM, CAST, clock="graph")
    assert found.ms == pytest.approx((2 * 26 + 21) / 1e3)
    assert found.parts == pytest.approx({"casts": 0.052, "norms": 0.021})
    assert (found.launches, found.host_ms, found.launch_bound) == (3, None, False)


def test_eager_has_a_launch_before_and_waits_for_the_first_operator() -> None:
    found = forward(CAST, NORM, CAST)
    assert found.gpu_ms == pytest.approx((2 * 27.5 + 22.5) / 1e3)
    assert found.ms == pytest.approx(found.gpu_ms + (5 + 2.5) / 1e3)
    assert found.host_ms == pytest.approx(15 / 1e3)


def test_a_step_has_its_micro_steps_and_one_optimizer() -> None:
    trace = Trace({"forward": (CAST,), "backward": (NORM, NORM), "optimizer": (ADAMW,)})
    found = price(trace, made_up(), ["step"], 3)["step", "graph"]
    assert found.launches == 3 * 3 + 1
    assert found.ms == pytest.approx((3 * (26 + 2 * 21) + 63.5) / 1e3)


def test_the_backward_of_a_pass_has_its_own_host_cost() -> None:
    trace = Trace({"forward": (CAST,) * 10, "backward": (CAST,) * 10})
    found = price(trace, made_up(), ["forward-backward"], host=Host(100, 200, "given"))["forward-backward", "eager"]
    assert found.ms == pytest.approx((10 * 100 + 10 * 200 + 27.5 + 2.5) / 1e3)
    assert found.launch_bound


def test_alike_operators_that_are_not_one_object_are_one_price() -> None:
    copies = tuple(replace(CAST) for _ in range(5))
    assert forward(*copies) == forward(*[CAST] * 5)


def test_an_empty_phase_takes_nothing() -> None:
    found = price(Trace({}), made_up(), ["forward"], host=FAST)["forward", "eager"]
    assert (found.ms, found.half, found.parts, found.launches) == (0, (0, 0), {}, 0)


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("host", [FAST, SLOW])
def test_parts_add_up(key: str, host: Host) -> None:
    for found in price(a_trace(1), boards()[key], PASSES, 2, host).values():
        assert sum(found.parts.values()) == pytest.approx(found.ms, rel=1e-9)
        assert found.ms >= max(found.gpu_ms, found.host_ms or 0)
        assert as_split(found).total_ms == pytest.approx(found.ms, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_the_host_limit_is_where_a_pass_becomes_launch_bound(seed: int) -> None:
    trace = a_trace(seed, most_bytes=1e9)
    limit = price(trace, boards()["a100"], ["forward"])["forward", "graph"].host_limit_us
    assert limit > 1
    for times, bound in ((0.99, False), (1.01, True)):
        host = Host(times * limit, times * limit, "given")
        assert price(trace, boards()["a100"], ["forward"], host=host)["forward", "eager"].launch_bound == bound


@pytest.mark.parametrize("key", KEYS)
def test_more_tokens_are_never_faster(key: str) -> None:
    def of(tokens: int) -> Trace:
        by = tokens / 512
        return Trace(
            {
                "forward": (
                    replace(BASE, sizes=(tokens, 2048, 2048, 1)),
                    replace(BRANCH, sizes=(tokens, 16, 2048, 1)),
                    replace(CAST, bytes=4e6 * by),
                    replace(ATTENTION, flops=1e9 * by),
                )
                * 20
            }
        )

    for clock in ("graph", "eager"):
        times = [
            price(of(tokens), boards()[key], ["forward"], host=FAST)["forward", clock].ms
            for tokens in range(512, 8193, 512)
        ]
        assert times == sorted(times)


@pytest.mark.parametrize("seed", range(5))
def test_a_board_with_more_of_everything_is_never_slower(seed: int) -> None:
    """SMs stay: more of them with the same rate each would not be the same waves."""
    board = made_up()
    more = replace(board, tflops=150.0, fp32_tflops=15.0, bandwidth_tbs=3.0, l2_tbs=15.0, launch_us=2.0, graph_us=0.8)
    for (of, clock), found in price(a_trace(seed), board, PASSES, host=FAST).items():
        assert price(a_trace(seed), more, PASSES, host=FAST)[of, clock].ms <= found.ms


def test_a_slower_host_is_never_faster_and_leaves_the_graph_alone() -> None:
    found = [price(a_trace(2), boards()["h100"], PASSES, host=Host(h, h, "given")) for h in (0, 2, 8, 20, 62, 200)]
    for pass_ in PASSES:
        times = [each[pass_, "eager"].ms for each in found]
        assert times == sorted(times)
        assert times[-1] > times[0]
        assert len({each[pass_, "graph"].ms for each in found}) == 1


def test_sources_of_error_add_up_as_the_root_of_their_squares() -> None:
    """Two casts of 26 us are wrong as one, by 30 %, and a product independently of them by 10 %."""
    gemm = replace(BASE, sizes=(4096, 2048, 100, 1))
    found = forward(CAST, CAST, gemm, clock="graph")
    product = found.ms - 0.052
    assert found.half[0] == pytest.approx(hypot(0.3 * 0.052, 0.1 * product) / found.ms)
    assert found.half[1] == pytest.approx(hypot(0.5 * 0.052, 0.2 * product) / found.ms)
    assert found.interval(80) == pytest.approx((found.ms * (1 - found.half[0]), found.ms * (1 + found.half[0])))


def test_half_widths_are_widened_for_whole_models(monkeypatch: pytest.MonkeyPatch) -> None:
    before, base = forward(BASE, CAST, clock="graph"), forward(BASE, clock="graph")
    narrow = ratio(before, base).half
    monkeypatch.setitem(predicted.MODEL_FACTOR, "time", 2.0)
    monkeypatch.setitem(predicted.MODEL_FACTOR, "ratio", 3.0)
    wide = forward(BASE, CAST, clock="graph")
    assert wide.half == pytest.approx([2 * h for h in before.half])
    assert ratio(wide, base).half == pytest.approx([3 * h for h in narrow])


def test_a_launch_bound_pass_is_as_uncertain_as_the_host() -> None:
    small = replace(CAST, bytes=1e3)
    halves = [hypot(*of) for of in zip(HOST_HALF, OPERATOR_HALF, strict=True)]
    assert forward(*[small] * 500, host=SLOW).half == pytest.approx(halves, rel=0.01)
    assert forward(*[BASE] * 500, host=FAST).half == pytest.approx((0.1, 0.2), rel=0.01)


def test_what_two_cases_share_cancels_in_their_ratio() -> None:
    base = forward(*[BASE] * 20, clock="graph")
    same, more = forward(*[BASE] * 20, clock="graph"), forward(*[BASE, BRANCH, CAST] * 20, clock="graph")
    assert ratio(same, base).half == (0, 0)
    found = ratio(more, base)
    assert found.value == pytest.approx(more.ms / base.ms)
    apart = hypot(more.half[1], base.half[1])
    assert 0 < found.half[1] < apart
    low, high = found.interval(90)
    assert (low, high) == pytest.approx((found.value * (1 - found.half[1]), found.value * (1 + found.half[1])))
    others = forward(*[replace(BASE, cause="outside"), BRANCH, CAST] * 20, clock="graph")
    assert others.ms == pytest.approx(more.ms)
    assert ratio(others, base).half[1] > 1.2 * found.half[1]


def test_the_product_inside_of_our_kernels_cancels_too_and_their_own_error_stays() -> None:
    base, ours = forward(*[BASE] * 20, clock="graph"), forward(*[LORA] * 20, clock="graph")
    assert ratio(ours, base).half == pytest.approx((0.2, 0.3), rel=1e-6)
    assert ours.half == pytest.approx((hypot(0.1, 0.2), hypot(0.2, 0.3)))
    assert ours.parts.keys() == {"fused"}


def test_one_board_s_errors_do_not_cancel_another_s() -> None:
    one, two = forward(BASE, clock="graph"), forward(BASE, clock="graph", key="another")
    assert ratio(two, one).half == pytest.approx((hypot(0.1, 0.1), hypot(0.2, 0.2)))


def test_a_difference_is_told_in_the_words_of_measured_ones() -> None:
    base, more = forward(*[BASE] * 20, clock="graph"), forward(*[BASE, CAST] * 20, clock="graph")
    found = ratio(more, base)
    splits = as_split(more), as_split(base)
    told = sentence("A", "B", "forward", Estimate(found.value, 1.01, 1.2), *splits)
    assert "of the extra 0.52 ms, 100 % is dtype casts." in told


def test_fp32_attention_takes_the_slower_cores() -> None:
    half, tf32, ordinary = (
        forward(replace(ATTENTION, **how), clock="graph").ms - 1e-3
        for how in ({}, {"width": 4}, {"width": 4, "fp32": True})
    )
    assert (tf32 / half, ordinary / half) == (pytest.approx(2), pytest.approx(10))


def test_operators_in_one_call_are_priced_as_alone() -> None:
    together = forward(*ALL, LORA, clock="graph").ms
    assert together == pytest.approx(sum(forward(op, clock="graph").ms for op in (*ALL, LORA)))


def test_a_trace_without_our_kernels_is_priced_without_torch() -> None:
    code = (
        "import sys\nfrom bench.predict.predicted import price\nfrom bench.predict.boards import board\n"
        "from tests.predict.traces import a_trace\nprice(a_trace(0), board('a100'), ['forward'])\n"
        "print('torch' in sys.modules)"
    )
    assert check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split() == ["False"]


def test_a_gemm_thinner_than_all_that_was_published_is_less_certain() -> None:
    gemm = Op("aten::mm", "branch", "gemm", (1024, 1024, 1024, 1))
    halves = [
        price(Trace({"forward": (replace(gemm, sizes=sizes),)}), made_up(), ("forward",))["forward", "graph"].half[0]
        for sizes in (gemm.sizes, (1024, 8, 1024, 1))
    ]
    assert halves[1] > 2 * halves[0]


@pytest.mark.parametrize("ends", [(0.5, 2.0), (1.01, 9.0)], ids=["may be none", "may be any"])
def test_the_causes_of_a_predicted_difference_are_told_however_uncertain_it_is(ends: tuple[float, float]) -> None:
    base, more = forward(*[CAST] * 9, clock="graph"), forward(*[CAST] * 9, NORM, clock="graph")
    by = Estimate(ratio(more, base).value, *ends)
    told = sentence("A", "B", "forward", by, as_split(more), as_split(base), "is predicted to take", anyhow=True)
    assert ("not told apart from 1" in told) == (ends[0] < 1)
    assert "100 % is norms/activations" in told
