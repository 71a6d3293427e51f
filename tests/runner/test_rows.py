"""Rows of a measured case: floors beside times, and times that cannot be."""

from typing import Any

import pytest

from bench.devices import Device
from bench.roofline.peaks import peaks_of
from bench.roofline.roofline import roofline_ms
from bench.runner.rows import Company, RowMaker
from bench.sweeps.expand import make_plan

H100 = Device("h100", "NVIDIA H100 80GB HBM3", 0, "GPU-1", "580.159.04", 132, 81559)
PLAN = make_plan("layers", on_cpu=False, where=["layer=square-4096", "method=full"])
CASE = PLAN.cases[0]


def row_of(device: Device, clock: str, ms: float, **more: Any) -> dict[str, Any]:
    event = {
        **more,
        "peak_mib": 1.0,
        "model_dropout": 0.0,
        "attention": None,
        "series": [
            {"pass": "forward", "clock": clock, "status": "ok", "stop": "converged", "refresh_ms": None,
             "samples_ms": [ms] * 24}
        ],
    }  # fmt: skip
    rows, samples = RowMaker(PLAN, "run", device).measured(CASE, 0, "1-now", event, Company("", "nothing", None, []))
    assert len(rows) == len(samples) == 1
    return rows[0]


def test_a_row_has_its_roofline_time_by_the_gpus_peaks() -> None:
    row = row_of(H100, "graph", 1.0)
    assert row["flops"] == 2 * 4096**3
    assert row["bytes"] == 2 * 3 * 4096**2, "x, W and y in bf16"
    assert row["floor_ms"] == pytest.approx(row["flops"] / 989e12 * 1e3, rel=0.01)
    assert row["floor_ms"] == pytest.approx(roofline_ms(CASE, "forward", peaks_of(H100.name, 132)), rel=1e-4)
    assert row["status"] == "ok"


@pytest.mark.parametrize(("clock", "status"), [("graph", "suspect"), ("eager", "suspect"), ("host", "ok")])
def test_faster_than_physics_is_suspect_but_the_host_may_be(clock: str, status: str) -> None:
    least = roofline_ms(CASE, "forward", peaks_of(H100.name, 132))
    assert least is not None
    assert row_of(H100, clock, 0.89 * least)["status"] == status
    assert row_of(H100, clock, 0.91 * least)["status"] == "ok"
    suspicion = row_of(H100, clock, 0.89 * least)["detail"]
    assert suspicion is None if status == "ok" else "roofline time" in suspicion


def test_a_row_says_what_its_impl_has_to_say() -> None:
    row = row_of(H100, "graph", 1.0, note="0 graph breaks")
    assert (row["status"], row["detail"]) == ("ok", "0 graph breaks")
    row = row_of(H100, "graph", 1e-3, note="0 graph breaks")
    assert (
        row["status"] == "suspect" and "roofline time" in row["detail"] and row["detail"].endswith("; 0 graph breaks")
    )


def test_an_unknown_gpu_has_no_roofline_time_and_no_suspicion() -> None:
    row = row_of(Device("x", "NVIDIA X9000", 0, "GPU-2", "999.1", 500), "graph", 1e-6)
    assert row["floor_ms"] is None and row["status"] == "ok" and row["flops"] == 2 * 4096**3
