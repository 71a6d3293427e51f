"""Clocks eager and host on a simulated GPU, and what device counts beside them."""

import pytest

from tests.fakecuda import FakeCuda
from tests.timing.fake_work import PASSES, FakeWork, medians, timed


def test_eager_counts_the_gaps_between_launches_and_device_does_not(cuda: FakeCuda) -> None:
    work = FakeWork(cuda)
    ms = medians(timed("eager", work))
    assert ms["forward", "eager"] == pytest.approx(0.1, rel=0.05), "ten launches of 10 us on the host"
    assert ms["forward", "host"] == pytest.approx(0.1, rel=0.01)
    assert ms["forward-backward", "host"] == pytest.approx(0.3, rel=0.01)
    ms = medians(timed("device", work))
    assert ms == pytest.approx({("forward", "device"): 0.02, ("backward", "device"): 0.04,
                                ("forward-backward", "device"): 0.06}, rel=1e-3)  # fmt: skip


def test_whole_steps_overlap_launches_that_micro_steps_apart_wait_for(cuda: FakeCuda) -> None:
    """The host runs ahead within a step: GPU work of 20 us a launch hides 10 us of host from the second launch on."""
    work = FakeWork(cuda, gpu=2e-5, host=1e-5)
    work.micro_steps, work.has_refresh = 4, True
    passes = (*PASSES, "step")
    found = timed("eager", work, passes)
    ms = medians(found)
    assert ms["forward-backward", "eager"] == pytest.approx(0.61, rel=1e-6), "30 launches, and the host's lead of one"
    assert ms["step", "eager"] == pytest.approx(4 * 0.6 + 0.01 + 0.001 + 0.003, rel=1e-6), (
        "the lead once, AdamW, refresh"
    )
    assert (found.part_ms("optimizer"), found.part_ms("refresh")) == (pytest.approx(0.001), pytest.approx(0.003))
    assert found.parts_ms() == pytest.approx(4 * 0.61 + 0.001 + 0.003), "three leads more than the whole"
    assert ms["step", "host"] == pytest.approx(4 * 0.3 + 0.002, rel=1e-6)
    assert {r["status"] for r in found.series(passes)} == {"ok"} and len(found.series(passes)) == 8
    device = timed("device", work, passes)
    assert medians(device)["step", "device"] == pytest.approx(4 * 0.6 + 0.004, rel=1e-6)
