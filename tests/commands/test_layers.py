"""Blocks apart (every-Nth) and by turns (lisa-G), from a sweep file to rows, through the command line."""

import json
from pathlib import Path

import pytest

from tests.conftest import Bench, Cli, rows_of
from tests.models.tiny import LLAMA, write_config

SWEEP = """
description: a small model, some of whose blocks train
axes: {level: model, model: CONFIG, batch: 1, seq: 8, precision: fp32, trainable_layers: [every-2nd, lisa-1]}
methods:
  - {method: full}
  - {method: lora, rank: 4, alpha: 8}
passes: [forward-backward, step]
measure: {min_samples: 8, budget_s: 0.05, model_budget_s: 0.05, wall_s: 1, warmup_s: 0.01, warmup_calls: 1,
  min_rounds: 4, block_s: 0.01}
"""


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    (tmp_path / "layers.yaml").write_text(SWEEP.replace("CONFIG", write_config(tmp_path, LLAMA)))
    return tmp_path / "layers.yaml"


@pytest.mark.slow
def test_a_sweep_measures_blocks_apart_and_by_turns(bench: Bench, sweep: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = bench("run", sweep, "--gpu", "cpu", "--out", out)
    assert done.returncode == 0, done.stderr
    rows = rows_of(out)
    assert len(rows) == 4 * 2 * 2 and {r["status"] for r in rows} == {"ok"}
    # Of a block of this Llama: q and o 32 x 32, k and v 16 x 32, gate and up 48 x 32, down 32 x 48, two norms of 32.
    sides = [(32, 32)] * 2 + [(16, 32)] * 2 + [(48, 32)] * 2 + [(32, 48)]
    block, adapter = sum(n * k for n, k in sides) + 2 * 32, sum(4 * (n + k) for n, k in sides)
    outside = 2 * 101 * 32 + 32
    expected = {
        ("full", "every-2nd"): 2 * block, ("lora", "every-2nd"): 2 * adapter,
        ("full", "lisa-1"): block + outside, ("lora", "lisa-1"): adapter,
    }  # fmt: skip
    assert {(r["method"], r["trainable_layers"]): r["trainable_params"] for r in rows} == expected
    for r in rows:
        assert r["detail"] == ("mean over a cycle of 4 stages" if r["trainable_layers"] == "lisa-1" else None)
        assert r["flops"] > 0 and r["bytes"] > 0 and (r["n"] or 0) > 0
    told = bench("why", out)
    assert told.returncode == 0, told.stderr
    assert "lisa-1" in told.stderr and "its time is a mean over stages, and a profile would be of one" in told.stderr
    causes = (out / "causes.csv").read_text()
    profiled = {json.dumps(r["case_id"]) for r in rows if r["case_id"] in causes}
    assert profiled == {json.dumps(r["case_id"]) for r in rows if r["trainable_layers"] == "every-2nd"}


def test_list_shows_them(cli: Cli, sweep: Path) -> None:
    done = cli("list", str(sweep), "--gpu", "h100")
    assert done.returncode == 0, done.stderr
    assert "every-2nd" in done.stdout and "lisa-1" in done.stdout
    done = cli("list", "--model", "tinyllama", "--trainable-layers", "every-3rd,lisa-4", "--gpu", "h100")
    assert done.returncode == 0 and "every-3rd" in done.stdout and "lisa-4" in done.stdout, done.stderr
