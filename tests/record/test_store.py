"""The record of a results folder: what is torn, what is refused, what moves aside. Files, not mocks."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from bench.case.columns import COLUMNS
from bench.case.schema import SCHEMA
from bench.errors import UserError
from bench.record.store import Record, open_record

ENVIRONMENT = {"gpu": "Board 1", "source_hash": "aa", "torch": "2.13.0", "triton": "3.7.1", "driver": "580.1"}


def row(case: str, pass_: str = "forward", **more: Any) -> dict[str, Any]:
    return {"case_id": case, "pass": pass_, "clock": "cpu", "repeat": 0, "status": "ok", "median_ms": 1.5, **more}


def made(folder: Path, *cases: str) -> Record:
    record = open_record(folder, ENVIRONMENT)
    record.write_run()
    for case in cases:
        record.add([row(case), row(case, "backward")], [row(case, samples_ms=[1.0, 2.0])])
    return record


def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    made(tmp_path / "r", "a", "b")
    again = open_record(tmp_path / "r", ENVIRONMENT)
    assert [(r["case_id"], r["pass"]) for r in again.rows] == [
        ("a", "forward"), ("a", "backward"), ("b", "forward"), ("b", "backward")
    ]  # fmt: skip
    assert not again.notes


def test_a_later_row_stands_for_an_earlier_one_of_its_kind(tmp_path: Path) -> None:
    record = made(tmp_path, "a")
    record.add([row("a", status="oom", median_ms=None)], [])
    again = open_record(tmp_path, ENVIRONMENT)
    assert [r["status"] for r in again.rows] == ["oom", "ok"]
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 3, "the file keeps both"


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_a_torn_last_line_is_dropped_and_said(tmp_path: Path, cut: int) -> None:
    made(tmp_path, "a", "b")
    path = tmp_path / "rows.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    again = open_record(tmp_path, ENVIRONMENT)
    assert [(r["case_id"], r["pass"]) for r in again.rows][-1] == ("b", "forward")
    assert any("rows.jsonl" in n and "torn" in n for n in again.notes)
    again.add([row("b", "backward")], [])
    assert len(open_record(tmp_path, ENVIRONMENT).rows) == 4, "and the next line does not stick to its rest"


def test_any_other_torn_line_is_refused_with_its_number(tmp_path: Path) -> None:
    made(tmp_path, "a", "b")
    path = tmp_path / "rows.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    for damage in ("{broken\n", "[]\n", '{"no": "row"}\n'):
        path.write_text(lines[0] + damage + "".join(lines[2:]))
        before = path.read_bytes()
        with pytest.raises(UserError, match=r"rows\.jsonl:2: "):
            open_record(tmp_path, ENVIRONMENT)
        assert path.read_bytes() == before


def test_another_schema_or_gpu_is_refused_and_nothing_touched(tmp_path: Path) -> None:
    made(tmp_path, "a")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(UserError, match=r"run\.json.*Board 1.*Board 2"):
        open_record(tmp_path, ENVIRONMENT | {"gpu": "Board 2"})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    run = json.loads((tmp_path / "run.json").read_text())
    for schema in (SCHEMA + 1, None, "1"):
        (tmp_path / "run.json").write_text(json.dumps(run | {"schema": schema}))
        with pytest.raises(UserError, match=rf"run\.json.*{schema!r}.*{SCHEMA}"):
            open_record(tmp_path, ENVIRONMENT)
    assert (tmp_path / "rows.jsonl").read_bytes() == before["rows.jsonl"]


def test_a_schema_of_any_size_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"schema": {"text": "x" * 5000}}))
    with pytest.raises(UserError, match="found schema") as refused:
        open_record(tmp_path, {"gpu": "Board 1"})
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"schema": 1}'])
def test_a_broken_run_json_is_refused(tmp_path: Path, text: str) -> None:
    made(tmp_path, "a")
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run\.json"):
        open_record(tmp_path, ENVIRONMENT)


def test_rows_without_a_run_json_are_refused(tmp_path: Path) -> None:
    made(tmp_path, "a")
    (tmp_path / "run.json").unlink()
    with pytest.raises(UserError, match=r"without its run\.json"):
        open_record(tmp_path, ENVIRONMENT)


@pytest.mark.parametrize("changed", ["source_hash", "torch", "triton", "driver"])
def test_another_environment_moves_the_old_record_aside(tmp_path: Path, changed: str) -> None:
    old = made(tmp_path, "a")
    (tmp_path / "table1.md").write_text("drawn")
    new = open_record(tmp_path, ENVIRONMENT | {changed: "other"})
    assert new.rows == [] and new.run["run_id"] != old.run["run_id"]
    assert any(changed in n and old.run["run_id"] in n for n in new.notes)
    aside = tmp_path / "earlier" / old.run["run_id"]
    assert {p.name for p in aside.iterdir()} == {"rows.jsonl", "samples.jsonl", "run.json", "table1.md"}
    assert len(open_record(aside, ENVIRONMENT).rows) == 2, "nothing measured is lost"


def test_fresh_starts_anew_and_keeps_the_old_one(tmp_path: Path) -> None:
    old = made(tmp_path, "a")
    new = open_record(tmp_path, ENVIRONMENT, fresh=True)
    assert new.rows == []
    assert (tmp_path / "earlier" / old.run["run_id"] / "rows.jsonl").exists()


def test_the_commit_is_provenance_only(tmp_path: Path) -> None:
    made(tmp_path, "a")
    assert len(open_record(tmp_path, ENVIRONMENT | {"commit": "another", "dirty": True}).rows) == 2


def test_the_csv_is_the_record_with_empty_cells_for_what_was_not_measured(tmp_path: Path) -> None:
    record = made(tmp_path, "a")
    record.add([row("c", status="oom", median_ms=None, detail='no, "room"\nat all')], [])
    record.write_csv()
    with open(tmp_path / "rows.csv", newline="") as f:
        table = list(csv.DictReader(f))
    assert tuple(table[0]) == COLUMNS
    assert [r["median_ms"] for r in table] == ["1.5", "1.5", ""]
    assert table[2]["detail"] == 'no, "room"\nat all'
    assert "nan" not in (tmp_path / "rows.csv").read_text().lower()


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    with pytest.raises(UserError, match="--out"):
        open_record(tmp_path / "x", ENVIRONMENT)
