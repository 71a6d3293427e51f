"""Tuned tiles are part of the identity of the rows that ran under them, and of no others."""

import json
from pathlib import Path

import pytest

from bench.case.schema import Status
from bench.devices import Device
from bench.record.environment import tuned_hash
from bench.record.store import open_record
from bench.runner.plan import open_tasks
from bench.runner.rows import RowMaker
from bench.sweeps.expand import make_plan

H100 = Device("h100", "NVIDIA H100 80GB HBM3", 0, "GPU-1", "580.1", 132, 81559)
ENVIRONMENT = {"gpu": H100.name, "source_hash": "x", "torch": "2.13.0", "triton": "3.7.1", "driver": "580.1"}

SWEEP = """
description: our kernels beside the textbook
axes: {level: linear, layer: square-1024, batch: 1, seq: 16, rank: 4, alpha: 8}
methods:
  - {method: full}
  - {method: lora, impl: [eager, triton, peft-triton]}
  - {method: paca, impl: triton}
"""


def test_new_tiles_open_the_rows_of_our_kernels_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(SWEEP)
    tiles = tmp_path / "tuned"
    tiles.mkdir()
    monkeypatch.setenv("LORABENCH_TUNED", str(tiles))
    plan = make_plan(str(tmp_path / "s.yaml"), on_cpu=False)
    record = open_record(tmp_path / "out", ENVIRONMENT)

    def still_open() -> set[tuple[str, str]]:
        return {(c.method, c.impl) for _, c in open_tasks(plan, record, 1, frozenset(), tuned_hash(H100))}

    def fill() -> None:
        maker = RowMaker(plan, "run", H100)
        for repeat, case in open_tasks(plan, record, 1, frozenset(), tuned_hash(H100)):
            record.add(maker.failed(case, repeat, None, Status.oom, "stands in for any row"), [])

    ours = {("lora", "triton"), ("lora", "peft-triton"), ("paca", "triton")}
    assert still_open() == ours | {("full", "eager"), ("lora", "eager")}
    fill()
    assert still_open() == set() and {r["tuned"] for r in record.rows} == {None}

    (tiles / "other.json").write_text(json.dumps({"device": "another device", "entries": []}))
    assert still_open() == set()
    (tiles / "h100.json").write_text(json.dumps({"device": H100.name, "entries": []}))
    assert still_open() == ours
    fill()
    assert still_open() == set()
    assert {(r["method"], r["impl"]) for r in record.rows if r["tuned"]} == ours
    (tiles / "h100.json").write_text(json.dumps({"device": H100.name, "entries": [1]}))
    assert still_open() == ours
    (tiles / "h100.json").unlink()
    assert still_open() == ours
