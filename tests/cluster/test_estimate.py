"""What a plan takes on the wall, beside what runs on a CPU took that are published with this project."""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from math import isfinite
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from bench.cluster.estimate import prices
from bench.cluster.model import board_of, pace
from bench.devices import choose_any, cpu_device
from bench.record.stats import MIN_SAMPLES
from bench.roofline.roofline import compulsory_bytes, roofline_ms
from bench.sweeps.expand import Plan, make_plan
from tests.conftest import ROOT, rows_of
from tests.mutations import FUZZ, damaged, damaged_json_lines

REFERENCE = ROOT / "results" / "cpu" / "reference"
CPU = cpu_device()
A100 = choose_any("a100", [])
Row = dict[str, Any]


def run_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((REFERENCE / name / "run.json").read_text())
    return found


def plan_of(name: str, place: Path) -> Plan:
    """The plan as it was when the reference was measured."""
    path = place / f"{name}.yaml"
    path.write_text(run_of(name)["invocations"][0]["sweep"]["text"])
    return make_plan(str(path), on_cpu=True)


def spent_s(name: str) -> float:
    """What the run took, of all kinds of work."""
    return float(sum(run_of(name)["invocations"][0]["spent_s"].values()))


def total_s(plan: Plan, *folders: Path) -> float:
    found = prices(plan, CPU, folders)
    return sum(map(found.seconds, plan.cases))


def copied(name: str, to: Path, change: Callable[[list[Row]], list[Row]], **run: Any) -> Path:
    """A reference's record with other rows, or another run.json."""
    to.mkdir(parents=True)
    (to / "run.json").write_text(json.dumps(run_of(name) | run))
    (to / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in change(rows_of(REFERENCE / name))))
    return to


@pytest.mark.parametrize("name", ["table1", "peers", "table2"])
def test_runs_take_what_was_estimated(name: str, tmp_path: Path) -> None:
    plan, spent = plan_of(name, tmp_path), spent_s(name)
    assert spent / 1.5 < total_s(plan) < spent * 1.5
    assert total_s(plan, REFERENCE / name) == pytest.approx(spent, rel=0.2)


@pytest.mark.parametrize(("known", "asked"), [(64, 128), (128, 64)])
def test_one_length_tells_what_another_takes(known: int, asked: int, tmp_path: Path) -> None:
    """From the half of the record that has one length, measured by processes that measured nothing else."""

    def half_of(rows: list[Row]) -> list[Row]:
        start = "2026-11-29T12:12:36+00:00" if known == 64 else max(r["measured_at"] for r in rows if r["seq"] == 64)
        kept = [r for r in rows if r["seq"] == known]
        return [r | {"process": r["process"] and r["process"].partition("-")[0] + "-" + start} for r in kept]

    folder = copied("table1", tmp_path / "half", half_of)
    whole, half = (prices(plan_of("table1", tmp_path), CPU, [f]) for f in (REFERENCE / "table1", folder))
    cases = [c for c in whole.by_case if c.seq == asked]
    assert sum(map(half.seconds, cases)) == pytest.approx(sum(map(whole.seconds, cases)), rel=0.2)
    assert half.known == whole.known / 2


def test_settings_count_where_they_are_no_longer_those_of_the_record(tmp_path: Path) -> None:
    plan = plan_of("table1", tmp_path)
    half = replace(plan, settings=plan.settings.model_copy(update={"max_rounds": plan.settings.max_rounds // 2}))
    assert total_s(half, REFERENCE / "table1") < 0.7 * total_s(plan, REFERENCE / "table1"), "70 % of it is in rounds"


def test_a_pause_and_a_merge_change_nothing(tmp_path: Path) -> None:
    """Half of the comparisons a day later in other processes, and rows in any order."""

    def paused(rows: list[Row]) -> list[Row]:
        ends = sorted({r["measured_at"] for r in rows if r["process"]})
        middle = max(r["measured_at"] for r in rows if r["seq"] == 64)
        assert ends[0] < middle < ends[-1]
        for row in rows:
            if row["process"] and row["seq"] == 128:
                row["measured_at"] = later(row["measured_at"])
                row["process"] = row["process"].partition("-")[0] + "1-" + later(middle)
        random.Random(1).shuffle(rows)
        return rows

    def later(time: str) -> str:
        return (datetime.fromisoformat(time) + timedelta(days=1)).isoformat()

    plan = plan_of("table1", tmp_path)
    folder = copied("table1", tmp_path / "paused", paused)
    assert total_s(plan, folder) == pytest.approx(total_s(plan, REFERENCE / "table1"), rel=0.1)


def test_the_record_of_another_gpu_tells_nothing(tmp_path: Path) -> None:
    plan = plan_of("table1", tmp_path)
    folder = copied("table1", tmp_path / "other", lambda rows: rows, gpu_key="h100")
    mixed = copied("table1", tmp_path / "rows", lambda rows: [r | {"gpu": "NVIDIA H100 80GB HBM3"} for r in rows])
    for foreign in (folder, mixed):
        found = prices(plan, CPU, [foreign])
        assert found.known == 0 and found == prices(plan, CPU)
    gpu = make_plan("table1", on_cpu=False)
    assert prices(gpu, A100, [REFERENCE / "table1"]) == prices(gpu, A100)


def test_folders_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    plan, good = plan_of("table1", tmp_path), REFERENCE / "table1"
    broken = [copied("table1", tmp_path / name, lambda rows: rows) for name in ("a", "b", "c")]
    (broken[0] / "run.json").write_text("{")
    (broken[1] / "rows.jsonl").write_text("no row\n" + (good / "rows.jsonl").read_text())
    (broken[2] / "run.json").unlink()
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for folder in (*broken, tmp_path / "empty", tmp_path / "file", tmp_path / "nowhere"):
        assert prices(plan, CPU, [folder]) == prices(plan, CPU)
        assert prices(plan, CPU, [folder, good]) == prices(plan, CPU, [good])


def test_a_torn_last_line_costs_its_row_alone(tmp_path: Path) -> None:
    folder = tmp_path / "torn"
    shutil.copytree(REFERENCE / "table1", folder)
    with open(folder / "rows.jsonl", "r+b") as f:
        f.truncate(f.seek(0, 2) - 10)
    plan = plan_of("table1", tmp_path)
    assert total_s(plan, folder) == pytest.approx(total_s(plan, REFERENCE / "table1"), rel=0.01)


MEASURED = [r for r in rows_of(REFERENCE / "table1") if r["process"]][:16]


@settings(**FUZZ, max_examples=150)
@given(damaged_json_lines(MEASURED) | damaged("".join(json.dumps(r) + "\n" for r in MEASURED).encode()))
def test_no_damage_makes_a_price_that_is_none(tmp_path: Path, written: bytes) -> None:
    folder = tmp_path / "damaged"
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps(run_of("table1")))
    (folder / "rows.jsonl").write_bytes(written)
    plan = plan_of("table1", tmp_path)
    found = prices(plan, CPU, [folder])
    assert all(isfinite(s) and 0 <= s < 10 * plan.settings.timeout_s for s in map(found.seconds, plan.cases))


def test_a_time_that_nobody_would_have_waited_for_is_bounded(tmp_path: Path) -> None:
    plan = plan_of("table1", tmp_path)
    slow = copied("table1", tmp_path / "slow", lambda rows: [slowed(r) for r in rows])
    most = prices(plan, CPU, [slow])
    # Six rounds, a call of the warm-up and those of the checks, none longer than a worker may be silent.
    assert max(map(most.seconds, plan.cases)) < 40 * plan.settings.timeout_s


def slowed(row: Row) -> Row:
    return row | dict.fromkeys(("ci_low_ms", "ci_high_ms"), None) | {"median_ms": row["median_ms"] and 1e29}


def test_what_a_device_refuses_costs_nothing(tmp_path: Path) -> None:
    plan = plan_of("table1", tmp_path)
    found = prices(plan, CPU)
    assert {c.impl for c in plan.cases if not found.seconds(c)} == {"triton"}
    path = tmp_path / "large.yaml"
    path.write_text(
        "description: weights, gradients and two moments of 7 B parameters\npasses: [step]\nmethods: [{method: full}]\n"
        "axes: {level: model, model: llama2-7b, batch: 1, seq: 64, precision: bf16}\n"
    )
    large = make_plan(str(path), on_cpu=False)
    small, roomy = (prices(large, choose_any(gpu, [])) for gpu in ("a100-pcie-40gb", "a100-sxm4-80gb"))
    assert small.seconds(large.cases[0]) == 0 < roomy.seconds(large.cases[0])


def test_of_a_gpu_elsewhere_it_is_not_asked_what_is_installed_here() -> None:
    """A login node has neither torch nor triton; its nodes have."""
    script = """
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name in ("triton", "peft", "torch") else found(name, *a)
from bench.cluster.estimate import prices
from bench.cluster.split import split
from bench.devices import choose_any
from bench.sweeps.expand import make_plan
plan = make_plan("table1", on_cpu=False)
found = prices(plan, choose_any("h100", []))
assert all(map(found.seconds, plan.cases))
assert len(split([(0, c) for c in plan.cases], 6, found.seconds)) == 6
assert not {"torch", "transformers", "pandas"} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("gpu", ["a100", "h100", "a GPU that gpus.yaml does not know"])
def test_on_a_gpu_more_work_takes_longer(gpu: str) -> None:
    device = choose_any("a100", []) if " " in gpu else choose_any(gpu, [])
    device = replace(device, name=gpu) if " " in gpu else device
    plan = make_plan("grid", on_cpu=False)
    found = prices(plan, device)
    by_size = {
        tokens: sum(found.seconds(c) for c in plan.cases if c.tokens == tokens and c.model == "gpt2-xl")
        for tokens in (128, 8192)
    }
    assert 0 < by_size[128] < by_size[8192]
    longer = replace(plan, clocks=("eager", "graph", "device"), passes=(*plan.passes, "step"))
    assert sum(map(prices(longer, device).seconds, plan.cases)) > sum(map(found.seconds, plan.cases))


@pytest.mark.parametrize("gpu", ["h100", "a100-pcie-40gb"])
def test_the_expected_call_is_its_closed_form(gpu: str) -> None:
    """Of whole models, whose forms are worked out at a few sizes, at every size of a grid."""
    device = choose_any(gpu, [])
    board = board_of(device)
    plan = make_plan("grid", on_cpu=False)
    for case in plan.cases:
        moved_s = (compulsory_bytes(case, "forward-backward") or 0) / (board.peaks.memory_tbs * 1e12)
        least_s = max((roofline_ms(case, "forward-backward", board.peaks) or 0) / 1e3, moved_s)
        assert pace(case, plan, board, "graph").first * board.share == pytest.approx(least_s, rel=0.05)


def test_a_case_of_another_plan_has_no_price(tmp_path: Path) -> None:
    found = prices(plan_of("table1", tmp_path), CPU)
    with pytest.raises(KeyError):
        found.seconds(plan_of("peers", tmp_path).cases[0])


def test_a_cycle_of_blocks_is_a_call_in_each_stage(tmp_path: Path) -> None:
    """Of 24 blocks by turns a sample is 24 calls, and no wall time is so short that there are no MIN_SAMPLES rounds."""
    text = (
        "description: layers\naxes: {level: model, model: gpt2-medium, batch: 4, seq: 1024, trainable_layers: WORD}\n"
        "methods: [{method: full}, {method: lora, rank: 8, alpha: 16}]\nmeasure: {wall_s: 0.1, warmup_calls: 1}\n"
    )
    seconds, calls = {}, {}
    for word in ("1", "lisa-1"):
        (tmp_path / "s.yaml").write_text(text.replace("WORD", word))
        plan = make_plan(str(tmp_path / "s.yaml"), on_cpu=False)
        seconds[word] = sum(map(prices(plan, A100).seconds, plan.cases))
        calls[word] = sum(pace(c, plan, board_of(A100), plan.clocks[0]).first for c in plan.cases)
    more = seconds["lisa-1"] - seconds["1"]
    assert more > MIN_SAMPLES * (24 * calls["lisa-1"] - 2 * calls["1"])
    assert more < 100 * 24 * calls["lisa-1"]
