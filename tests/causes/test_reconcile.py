"""Causes that add up to the clock's median, and how far profile and clock were apart before."""

import pytest

from bench.causes.attribution import Tally
from bench.causes.reconcile import Call, on_cpu, on_gpu


def call(noise: float = 1.0, **us: float) -> Call:
    return {cause: Tally(t * noise, launches=2, bytes=10.0, flops=4.0) for cause, t in us.items()}


NOISE = (1.0, 0.9, 1.1, 0.98, 1.02)


def test_the_causes_add_up_to_the_median() -> None:
    calls = [call(n, branch=3000, norms=1000, gaps=2000) for n in NOISE]
    split = on_cpu(calls, [5.0] * 5, median_ms=10.0)
    assert split.total_ms == pytest.approx(10.0)
    assert {c: p.ms for c, p in split.parts.items()} == pytest.approx({"branch": 6.0, "norms": 2.0, "gaps": 2.0})
    assert (split.scale, split.remainder, split.source) == (2.0, pytest.approx(0.0), "operators")
    branch = split.parts["branch"]
    assert (branch.launches, branch.bytes, branch.flops) == (2, 10.0, 4.0)
    assert branch.low == pytest.approx(5.4) and branch.high == pytest.approx(6.6)


def test_a_profiler_that_slows_the_operators_is_the_remainder() -> None:
    split = on_cpu([call(branch=6000, gaps=2000)] * 5, [5.0] * 5, median_ms=5.0)
    assert split.remainder == pytest.approx(0.2)
    assert not split.agrees
    assert split.total_ms == pytest.approx(5.0)
    gaps = split.parts["gaps"]
    assert (gaps.ms, gaps.low) == (0.0, 0.0) and gaps.high and gaps.high > 1.0, "0 is not certain"


def test_gaps_are_no_more_than_a_profiled_call_has() -> None:
    """What plain calls took beyond it is not known to be a gap."""
    split = on_cpu([call(branch=4000, gaps=500)] * 5, [5.0] * 5, median_ms=5.0)
    assert split.parts["gaps"].ms == pytest.approx(5.0 / 9)
    assert split.remainder == pytest.approx(0.1)
    assert split.total_ms == pytest.approx(5.0)


def test_what_is_left_over_is_a_remainder() -> None:
    split = on_cpu([call(branch=4000, left_over=1000)] * 5, [5.0] * 5, median_ms=5.0)
    assert split.remainder == pytest.approx(0.2)


def test_kernels_are_scaled_to_the_graph_and_eager_has_the_gaps() -> None:
    calls = [call(n, base_forward=3900, fused=1000) for n in NOISE]
    graph = on_gpu(calls, median_ms=5.0, work_ms=5.0)
    assert "gaps" not in graph.parts
    assert graph.total_ms == pytest.approx(5.0)
    assert graph.remainder == pytest.approx(0.02)
    eager = on_gpu(calls, median_ms=8.0, work_ms=5.0)
    assert eager.parts["gaps"].ms == pytest.approx(3.0)
    assert eager.parts["fused"] == graph.parts["fused"]
    assert eager.total_ms == pytest.approx(8.0)
    assert (eager.scale, eager.source) == (pytest.approx(5.0 / 4.9), "kernels")


def test_kernels_alone_stand_as_they_were_timed() -> None:
    split = on_gpu([call(branch=2000)] * 3, median_ms=5.0, work_ms=None)
    assert (split.parts["branch"].ms, split.parts["gaps"].ms, split.remainder) == pytest.approx((2.0, 3.0, 0.0))
    late = on_gpu([call(branch=6000)] * 3, median_ms=5.0, work_ms=None)
    assert late.total_ms == pytest.approx(5.0)
    assert late.remainder == pytest.approx(0.2)


def test_what_kernels_without_an_operator_moved_is_not_known() -> None:
    split = on_gpu([{"fused": Tally(10.0, 3)}] * 3, median_ms=1.0, work_ms=1.0)
    fused = split.parts["fused"]
    assert (fused.launches, fused.bytes, fused.flops) == (3, None, None)


def test_a_profile_without_any_kernel_explains_nothing() -> None:
    split = on_gpu([{}] * 3, median_ms=5.0, work_ms=4.0)
    assert split.total_ms == 5.0
    assert not split.agrees
