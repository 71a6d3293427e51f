"""The schema: ids that never change, rows of any age read back, and all that lists axes reads them from here."""

import csv
import json
import os
import pickle
import subprocess
import sys
from dataclasses import fields, make_dataclass
from pathlib import Path

import pytest

from bench.case import AXES, Case, read_case
from bench.case.case import TYPES
from bench.case.clocks import CLOCKS
from bench.case.columns import COLUMNS
from bench.case.schema import Axis, axis
from bench.sweeps.file import Axes, SweepFile
from tests.conftest import ROOT, Bench

REFERENCES = sorted((ROOT / "results").glob("*/reference/*"))


@pytest.mark.parametrize("folder", REFERENCES, ids=lambda p: p.name)
def test_ids_of_published_rows_are_what_they_were(folder: Path) -> None:
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    assert rows
    for row in rows:
        assert read_case(row).case_id == row["case_id"]


@pytest.mark.parametrize("folder", REFERENCES, ids=lambda p: p.name)
def test_a_row_of_the_csv_is_the_case_of_its_json(folder: Path) -> None:
    cases = {read_case(json.loads(line)) for line in (folder / "rows.jsonl").read_text().splitlines()}
    with open(folder / "rows.csv", newline="", encoding="utf-8") as f:
        assert {read_case(row) for row in csv.DictReader(f)} == cases


def test_a_row_without_later_axes_is_the_case_without_them(make: Case) -> None:
    row = make.axes()
    del row["accumulation"]
    assert read_case(row) == make and read_case(row).case_id == make.case_id


@pytest.fixture
def make() -> Case:
    return Case(
        level="linear", model=None, layer="square-16", method="lora", impl="eager", trainable_layers="all", rank=4,
        alpha=8.0, dropout=0.0, targets=None, adapter_dtype="fp32", precision="fp32", batch=1, seq=16,
    )  # fmt: skip


def test_what_is_no_value_of_an_axis_is_empty(make: Case) -> None:
    odd = read_case({**make.axes(), "rank": "many", "alpha": "nan", "batch": "x", "level": None})
    assert (odd.rank, odd.alpha, odd.batch, odd.level) == (None, None, 0, "unknown")


def test_an_axis_that_comes_later_changes_no_id_while_it_is_empty(make: Case) -> None:
    """What adding an axis takes: one field, marked with the revision that brought it."""
    later = make_dataclass(
        "Later", [("checkpointing", "str | None", axis("checkpointing", "recomputation", default=None, since=3))],
        bases=(Case,), frozen=True,
    )  # fmt: skip
    AXES["checkpointing"] = later.__dataclass_fields__["checkpointing"].metadata["axis"]
    try:
        assert later(**make.axes()).case_id == make.case_id
        assert later(**make.axes(), checkpointing="full").case_id != make.case_id
    finally:
        del AXES["checkpointing"]


def test_a_pickled_case_is_found_again_in_another_process(make: Case, tmp_path: Path) -> None:
    """Hashes of strings differ from process to process."""
    hash(make)
    (tmp_path / "case").write_bytes(pickle.dumps(make))
    code = "import pickle, sys; from bench.case import Case\nc = pickle.load(open(sys.argv[1], 'rb'))\n"
    code += "assert c in {Case(**c.axes())}"
    env = os.environ | {"PYTHONHASHSEED": "7"}
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "case"], cwd=ROOT, env=env).returncode == 0


def test_the_axes_are_the_keys_of_a_sweep_file_and_columns_of_a_row() -> None:
    assert list(AXES) == [f.name for f in fields(Case)] == list(TYPES) == list(Axes.model_fields)
    assert set(AXES) < set(COLUMNS) and len(set(COLUMNS)) == len(COLUMNS)
    assert [c for c in COLUMNS if c in AXES] == list(AXES)
    assert all(isinstance(a, Axis) and a.meaning for a in AXES.values())
    clocks = SweepFile.model_validate({"description": "x", "axes": {}, "methods": [{}], "clocks": ["graph", "eager"]})
    assert set(clocks.clocks) < set(CLOCKS)


def test_cases_that_differ_in_how_they_train_are_compared(make: Case) -> None:
    full = Case(
        **{**make.axes(), "method": "full", "rank": None, "alpha": None, "dropout": None, "adapter_dtype": None}
    )
    assert full.comparison == make.comparison
    for name, value in (("seq", 32), ("precision", "bf16"), ("l2", "warm"), ("trainable_layers", "2")):
        assert Case(**{**make.axes(), name: value}).comparison != make.comparison, name


def test_list_shows_the_axes_that_are_listed(bench: Bench, sweep_file: Path) -> None:
    done = bench("list", sweep_file)
    head = done.stdout.splitlines()[0].split()
    assert [a for a in AXES if AXES[a].listed and a in head] == [a for a in head if a in AXES]
    assert "rank" in head and "targets" not in head
