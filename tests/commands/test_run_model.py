"""`bench run --model` from the command to the page, on a model of two thousand weights."""

import json
import shlex
from pathlib import Path

import pytest

from bench.sweeps.expand import make_plan
from tests.conftest import Bench, rows_of
from tests.models.tiny import LLAMA, write_config


@pytest.mark.slow
def test_a_model_is_measured_recorded_and_drawn(bench: Bench, tmp_path: Path) -> None:
    for folder in ("a/tiny", "b/tiny"):
        (tmp_path / folder).mkdir(parents=True)
        Path(write_config(tmp_path / folder, {**LLAMA, "model_type": "qwen3"})).rename(
            tmp_path / folder / "config.json"
        )
    out = tmp_path / "out"
    sizes = ["--batch", "1", "--seq", "4", "--rank", "2", "--method", "lora", "--impl", "eager", "--gpu", "cpu"]
    words = ["--model", str(tmp_path / "a/tiny"), *sizes[:-2]]
    done = bench("run", "--model", tmp_path / "a/tiny", *sizes, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "tiny on " in done.stderr and done.stdout.split() == [str(out)]
    rows = rows_of(out)
    assert {(r["status"], r["model"], r["seq"]) for r in rows} == {("ok", str(tmp_path / "a/tiny"), 4)}
    assert {r["rank"] for r in rows} == {None, 2}
    sweep = json.loads((out / "run.json").read_text())["invocations"][-1]["sweep"]
    assert sweep["words"] == words and sweep["configs"][str(tmp_path / "a/tiny")]["hidden_size"] == 32
    (tmp_path / "recorded.yaml").write_text(sweep["text"])
    measured = {r["case_id"] for r in rows}
    assert {c.case_id for c in make_plan(str(tmp_path / "recorded.yaml"), True).cases} == measured
    repro = shlex.split(rows[0]["repro"])[3:]
    listed = bench("list", *repro[1 : repro.index("--out")])
    assert rows[0]["case_id"] in listed.stdout and len(listed.stdout.splitlines()) == 4

    again = bench("run", "--model", tmp_path / "a/tiny", *sizes, "--out", out)
    assert again.returncode == 0 and "all 2 cases are measured" in again.stderr and rows_of(out) == rows
    other = bench("run", "--model", tmp_path / "b/tiny", *sizes, "--out", out)
    assert other.returncode == 0, other.stderr
    drawn = bench.plots(out)
    assert drawn.returncode == 0, drawn.stderr
    lines = [line for line in (out / "table1.md").read_text().splitlines() if "Full-FT eager |" in line]
    assert {line.split("|")[1].strip() for line in lines} == {"a/tiny", "b/tiny"}, "two models of one name"
    why = bench("why", out)
    assert why.returncode == 0 and "a/tiny block" in why.stdout, why.stderr
