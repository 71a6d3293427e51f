"""bench.read: a typed DataFrame of any results folder, and the columns that are derived from its rows."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import bench
from bench.case.columns import COLUMNS, RECORDED, ROW
from bench.case.schema import SCHEMA
from bench.errors import UserError
from tests.conftest import ROOT
from tests.synthetic import case, row, write_run

REFERENCE = ROOT / "results" / "cpu" / "reference"
TABLE1 = REFERENCE / "table1"
BOTH = {"clock": "cpu-time", "pass_": "forward-backward", "status": "ok"}


def folder_of(tmp_path: Path, *rows: dict[str, Any], **run: Any) -> Path:
    folder = write_run(tmp_path / "made", rows)
    if run:
        (folder / "run.json").write_text(json.dumps(json.loads((folder / "run.json").read_text()) | run))
    return folder


def trained(pass_: str, ms: float, axes: dict[str, Any], **more: Any) -> dict[str, Any]:
    of = case(**{"layer": None, "level": "model", "model": "gpt2-xl"} | axes)
    return row("made", 0, 1, ms, **{"case_id": of.case_id, **of.axes(), "pass": pass_} | more)


@pytest.mark.parametrize("name", ["table1", "table2", "peers"])
def test_every_column_is_there_in_its_order_and_type(name: str) -> None:
    frame = bench.read(REFERENCE / name)
    assert tuple(frame.columns) == COLUMNS
    assert {c.name: str(frame[c.name].dtype) for c in ROW} == {c.name: c.dtype for c in ROW}
    assert len(frame) == len((REFERENCE / name / "rows.jsonl").read_text().splitlines())


def test_an_empty_folder_of_a_run_that_has_measured_nothing_yet_has_the_same_types(tmp_path: Path) -> None:
    frame = bench.read(folder_of(tmp_path))
    assert frame.empty and {name: str(t) for name, t in frame.dtypes.items()} == {c.name: c.dtype for c in ROW}


def test_the_usual_traps_of_pandas_are_gone() -> None:
    frame = bench.read(TABLE1)
    calm = frame[~frame.noisy & (frame.status == "ok")]
    assert 0 < len(calm) < len(frame) and not calm.noisy.any()
    assert frame["rank"].dtype == "Int64" and set(frame["rank"].dropna()) == {8, 16}
    groups = frame.groupby(["comparison", "pass", "clock", "repeat"])
    assert len(groups) == 6 * 3 * 2 and groups.size().sum() == len(frame), "no row is lost to an empty axis"
    based = frame[frame.ratio_to == frame.case_id]
    assert set(based.method) == {"full"} and (based.ratio == 1).all()
    assert frame.measured_at.max() - frame.measured_at.min() < pd.Timedelta(days=1)
    assert len(frame.query("`pass` == 'forward'")) == len(bench.read(TABLE1, pass_="forward"))


def test_two_lines_give_the_ratios_of_table_1() -> None:
    frame = bench.read(TABLE1, **BOTH)
    found = frame.pivot_table("ratio", index=["model", "method", "impl"], columns=["batch", "seq"])
    assert found.shape == (3 * 4, 2)
    table = pd.read_csv(TABLE1 / "table1.csv")
    table = table[(table["pass"] == "forward-backward") & (table.clock == "cpu-time") & (table.status == "ok")]
    for line in table.to_dict("records"):
        here = found.loc[(line["model"], line["method"], line["impl"]), (line["batch"], line["seq"])]
        assert here == pytest.approx(line["ratio_to_full"], rel=1e-9)


def test_columns_choose_rows_and_unknown_ones_are_named() -> None:
    frame = bench.read(TABLE1, method=["lora", "paca"], seq=64, **BOTH)
    assert set(frame.method) == {"lora", "paca"} and set(frame.seq) == {64}
    assert bench.read(TABLE1, method="none").empty
    with pytest.raises(UserError, match=r"'mehtod' is not valid\. Did you mean 'method'\?"):
        bench.read(TABLE1, mehtod="lora")


def test_tokens_and_utilization_equal_hand_computed_ones(tmp_path: Path) -> None:
    """2 x 512 tokens 4 times in 2 s are 2048 a second. 9.894e14 FLOP in 2 s are half of an H100's 989.4 TFLOP/s."""
    axes = {"batch": 2, "seq": 512, "accumulation": 4, "precision": "bf16"}
    rows = [
        trained("step", 2000.0, axes, flops=989.4e12), trained("forward-backward", 400.0, axes, flops=2e14),
        trained("forward", 100.0, axes), trained("step", 1500.0, axes, clock="host", flops=989.4e12),
        trained("step", 0.5, axes, clock="graph", status="suspect"),
    ]  # fmt: skip
    frame = bench.read(folder_of(tmp_path, *rows, sm_count=132)).drop(columns="gpu")
    assert list(frame.tokens) == [4096, 1024, 1024, 4096, 4096]
    assert frame.tokens_per_s.tolist()[:2] == pytest.approx([2048, 2560])
    assert frame.mfu.isna().all(), "the board's peak is not known"
    board = {"gpu": "NVIDIA H100 80GB HBM3"}
    shutil.rmtree(tmp_path / "made")
    frame = bench.read(folder_of(tmp_path, *(r | board for r in rows), sm_count=132))
    assert frame.mfu.tolist()[:2] == pytest.approx([0.5, 2e14 / 0.4 / 989.4e12])
    assert frame[["tokens_per_s", "mfu"]].iloc[2:].isna().all(axis=None), "forward alone, the host's time, no result"


def test_a_cpu_has_the_measured_peak_and_its_time_is_only_told_of_one_thread(tmp_path: Path) -> None:
    axes = {"batch": 1, "seq": 100, "level": "block"}
    rows = [
        trained("forward-backward", 100.0, axes, clock=clock, threads=threads, flops=4e9)
        for clock, threads in (("cpu-time", 1), ("cpu-time", 2), ("cpu", 2))
    ]
    found = [bench.read(folder_of(tmp_path / str(i), r, gpu_key="cpu", ceilings={"fp32_gflops": 80.0}))
             for i, r in enumerate(rows)]  # fmt: skip
    assert [f.tokens_per_s.tolist() for f in found][::2] == [[1000.0], [1000.0]]
    assert [f.mfu.tolist() for f in found][::2] == [[pytest.approx(0.5)]] * 2
    assert found[1].tokens_per_s.isna().all() and found[1].mfu.isna().all()


def test_a_single_layer_has_tokens_and_no_throughput(tmp_path: Path) -> None:
    frame = bench.read(folder_of(tmp_path, row("made", 0, 1, 2.0, **{"pass": "forward-backward"})))
    assert frame.tokens.tolist() == [32] and frame.tokens_per_s.isna().all()


@pytest.mark.parametrize("name", ["table1", "table2", "peers"])
def test_the_csv_has_what_the_record_has(name: str, tmp_path: Path) -> None:
    """rows.csv of the committed folders, read without their rows.jsonl, gives the same frame."""
    for file in ("rows.csv", "run.json"):
        shutil.copy(REFERENCE / name / file, tmp_path)
    pd.testing.assert_frame_equal(bench.read(tmp_path), bench.read(REFERENCE / name))
    line = (REFERENCE / name / "rows.csv").read_text().splitlines()[0]
    assert tuple(line.split(",")) == COLUMNS


def test_a_row_of_before_some_columns_and_a_later_one_of_its_key(tmp_path: Path) -> None:
    old = {k: v for k, v in row("made", 0, 1, 2.0).items() if k in RECORDED[:30] or k == "status"}
    folder = folder_of(tmp_path, old, old | {"median_ms": 3.0})
    assert bench.read(folder).median_ms.tolist() == [3.0]


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such folder"):
        bench.read(tmp_path / "nowhere")
    with pytest.raises(UserError, match="this is no results folder"):
        bench.read(tmp_path)
    folder = folder_of(tmp_path, row("made", 0, 1, 2.0))
    whole = (folder / "rows.jsonl").read_text()
    (folder / "rows.jsonl").write_text(whole + whole[:50])
    with pytest.warns(UserWarning, match=r"rows\.jsonl: its last line is torn"):
        assert len(bench.read(str(folder))) == 1
    (folder / "rows.jsonl").write_text(whole.replace('"n": null', '"n": -1'))
    with pytest.raises(UserError, match=r"rows\.jsonl:1: damaged line: n is -1"):
        bench.read(folder)
    (folder / "run.json").write_text(json.dumps({"schema": SCHEMA + 1}))
    (folder / "rows.jsonl").write_text(whole)
    with pytest.raises(UserError, match=r"run\.json: found schema"):
        bench.read(folder)


def test_importing_bench_takes_no_library_along() -> None:
    code = "import bench, sys; print(sorted({'pandas', 'numpy', 'pydantic', 'torch', 'yaml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
