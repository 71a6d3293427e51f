"""Sweep table2: what it measures, what it measures on request, and a small one of its kind run for real."""

import json
from pathlib import Path

import pytest

from bench.case import Case
from bench.errors import UserError
from bench.roofline.roofline import compulsory_bytes, flops
from bench.sweeps.expand import make_plan
from tests.conftest import ROOT, Bench, rows_of
from tests.models.tiny import LLAMA, write_config

TABLE3 = {("lora", "all"): (8, 32, 0.1), ("paca", "all"): (16, 64, None), ("paca", "upper-3/4"): (24, 64, None),
          ("paca", "upper-1/2"): (32, 64, None)}  # fmt: skip
SMALL = """
description: table 2 in small
axes: {{level: model, model: {model}, batch: 2, seq: 16, accumulation: 4, precision: fp32}}
on_request: {{precision: amp-bf16, batch: 3}}
methods:
  - {{method: lora, rank: 4, alpha: 8, dropout: 0.1, trainable_layers: [all, upper-1/2]}}
  - {{method: paca, rank: 4, alpha: 8, trainable_layers: [all, upper-1/2]}}
passes: [forward, backward, forward-backward, step]
measure: {{min_samples: 8, budget_s: 0.1, model_budget_s: 0.2, wall_s: 1, warmup_s: 0.01, warmup_calls: 1}}
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL.format(model=write_config(tmp_path, LLAMA)))
    return path


def test_table2_is_the_papers_with_lora_on_the_same_layers() -> None:
    plan = make_plan("table2", on_cpu=False)
    llama = [c for c in plan.cases if c.model == "llama2-7b"]
    assert {(c.batch, c.seq, c.accumulation, c.precision, c.level) for c in plan.cases} == {
        (8, 512, 4, "bf16", "model")
    }
    for impl in ("eager", "triton"):
        found = {(c.method, c.trainable_layers): (c.rank, c.alpha, c.dropout) for c in llama if c.impl == impl}
        assert found == TABLE3 | {("lora", "upper-3/4"): (8, 32, 0.1), ("lora", "upper-1/2"): (8, 32, 0.1)}
    assert {c.targets for c in llama} == {"all-linear"} and "step" in plan.passes
    assert {c.model for c in plan.cases} == {"llama2-7b", "tinyllama", "gpt2-xl", "gpt2-medium"}
    assert plan.cases[: len(llama)] == tuple(llama), "the paper's model first"
    paper = (ROOT / "results" / "paper" / "table3.csv").read_text()
    assert "rank,8,32,24,16" in paper and "alpha,32,64,64,64" in paper, "LoRA, Upper Half, Three Quarters, PaCA"


def test_without_a_gpu_it_is_four_blocks_of_tinyllama() -> None:
    plan = make_plan("table2", on_cpu=True)
    assert {(c.model, c.accumulation, c.precision) for c in plan.cases} == {("tinyllama-4-blocks", 4, "fp32")}
    shape, whole = plan.cases[0].shape, make_plan("table2", on_cpu=False, where=["model=tinyllama"]).cases[0].shape
    assert shape is not None and whole is not None
    assert (shape.num_layers, whole.num_layers) == (4, 22) and shape.projections == whole.projections
    assert shape.config == {**whole.config, "num_hidden_layers": 4}


def test_a_value_on_request_is_measured_only_where_it_is_named() -> None:
    plain = make_plan("table2", on_cpu=False)
    asked = make_plan("table2", on_cpu=False, where=["precision=amp-fp16"])
    assert {c.precision for c in asked.cases} == {"amp-fp16"} and {c.adapter_dtype for c in asked.cases} == {"fp32"}
    assert len(asked.cases) == len(plain.cases) - 4, "over fp32 weights peft-fp32 is peft, in each of four models"
    both = make_plan("table2", on_cpu=False, where=["precision=bf16,amp-fp16"])
    assert len(both.cases) == len(plain.cases) + len(asked.cases)
    again = make_plan("table2", on_cpu=False, where=[f"case_id={asked.cases[0].case_id}"])
    assert again.cases == asked.cases[:1], "a row's repro finds it"
    with pytest.raises(
        UserError,
        match=r"'fp16' is not in this sweep\. .* Values of precision: bf16; on request: amp-",
    ):
        make_plan("table2", on_cpu=False, where=["precision=fp16"])


def test_several_axes_on_request(small: Path) -> None:
    def found(*where: str) -> set[tuple[str, int]]:
        return {(c.precision, c.batch) for c in make_plan(str(small), on_cpu=True, where=where).cases}

    assert (
        found() == {("fp32", 2)}
        and found("batch=3") == {("fp32", 3)}
        and found("batch=2,3") == {("fp32", 2), ("fp32", 3)}
    )
    assert found("batch=3", "precision=amp-bf16") == {("amp-bf16", 3)}


def test_accumulation_is_an_axis_and_one_is_none() -> None:
    plan = make_plan("smoke", on_cpu=True)
    case = plan.cases[0]
    assert case.accumulation is None and case.micro_steps == 1 and "times" not in case.describe()
    four = Case(**case.axes() | {"accumulation": 4})
    assert four.case_id != case.case_id and four.micro_steps == 4 and four.describe().endswith("4 times")
    for count in (flops, compulsory_bytes):
        both, step, more = count(case, "forward-backward"), count(case, "step"), count(four, "step")
        assert both is not None and step is not None and more is not None
        assert more - step == 3 * both and count(four, "forward") == count(case, "forward")


def test_accumulation_of_one_is_the_same_case(tmp_path: Path) -> None:
    text = "description: x\naxes: {level: linear, layer: square-64, batch: 1, seq: 8%s}\nmethods: [{method: full}]\n"
    ids = []
    for more in ("", ", accumulation: 1", ", accumulation: 2"):
        path = tmp_path / "x.yaml"
        path.write_text(text % more)
        ids.append(make_plan(str(path), on_cpu=True).cases[0].case_id)
    assert ids[0] == ids[1] != ids[2]
    path.write_text(text % ", accumulation: 0")
    with pytest.raises(UserError, match="accumulation"):
        make_plan(str(path), on_cpu=True)


@pytest.mark.slow
def test_a_small_table_2_from_run_to_page(bench: Bench, small: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    out = tmp_path / "out"
    done = bench("run", small, "--out", out)
    assert done.returncode == 0, done.stderr
    rows = {(r["method"], r["trainable_layers"], r["pass"]): r for r in rows_of(out) if r["clock"] == "cpu-time"}
    assert len(rows) == 2 * 2 * 4 and {r["accumulation"] for r in rows.values()} == {4}
    for (method, layers, pass_), row in rows.items():
        assert row["status"] == "ok"
        assert (row["optimizer_ms"] is not None) == (row["parts_ms"] is not None) == (pass_ == "step")
        assert (row["refresh_ms"] is not None) == (method == "paca")
        if pass_ == "step":
            both = rows[method, layers, "forward-backward"]["median_ms"]
            parts = 4 * both + row["optimizer_ms"] + (row["refresh_ms"] or 0.0)
            assert row["parts_ms"] == pytest.approx(parts, abs=5e-6), "to the nanosecond"
    drawn = subprocess.run(
        [sys.executable, "-m", "plots", out], cwd=ROOT, env=bench.env, capture_output=True, text=True
    )
    assert drawn.returncode == 0, drawn.stderr
    assert {"table2.md", "table2.csv", "steps.png", "report.html"} <= {p.name for p in out.iterdir()}
    assert "Upper Half PaCA" in (out / "table2.md").read_text()
    assert json.loads((out / "run.json").read_text())["invocations"][0]["cases"] == 4
