"""Data from strangers: what is absurd, has no end or is no file at all is told in one sentence."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.errors import UserError
from bench.train.data import FIELDS, LONGEST_FILE, LONGEST_ITEM, Item, read_items
from bench.train.parquet import lines

GOOD: dict[str, Any] = {"question": "What?", "choices": ["a", "b", "c", "d"], "answer": 2, "subject": "anatomy"}
ITEM = Item("What?", ("a", "b", "c", "d"), 2, "anatomy")
COLUMNS = {name: pa.array([value] * 2) for name, value in GOOD.items()}
FEW = pa.table({name: pa.array([value]) for name, value in GOOD.items()})


def told(path: Path) -> str:
    with pytest.raises(UserError) as error:
        read_items(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 1000
    return str(error.value).removeprefix(str(path))


def as_lines(path: Path, table: pa.Table, **options: Any) -> Path:
    """The same table as JSON lines beside `path`, made in this process."""
    pq.write_table(table, path, **options)
    path.with_suffix(".jsonl").write_bytes(b"".join(lines(path.read_bytes(), (*FIELDS, "train"), 10**6)))
    return path.with_suffix(".jsonl")


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("question", COLUMNS["question"].dictionary_encode()),
        ("subject", COLUMNS["subject"].cast(pa.large_string()).dictionary_encode()),
        ("choices", COLUMNS["choices"].cast(pa.list_(pa.string(), 4))),
        ("choices", COLUMNS["choices"].cast(pa.large_list(pa.large_string()))),
        ("answer", COLUMNS["answer"].cast(pa.uint8())),
        ("answer", COLUMNS["answer"].dictionary_encode()),
        ("answer", pa.array(["C", "C"]).dictionary_encode()),
        ("beside", pa.array([{"a": [b"\xff"]}, None])),
        ("train", pa.array([{"question": "another"}, None])),
    ],
)
def test_columns_of_other_types_with_the_same_values_are_read(tmp_path: Path, name: str, column: pa.Array) -> None:
    table = pa.table({**COLUMNS, name: column})
    assert read_items(as_lines(tmp_path / "x.parquet", table)) == [ITEM] * 2
    assert read_items(as_lines(tmp_path / "x.parquet", table, row_group_size=1, compression="gzip")) == [ITEM] * 2


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (FEW.slice(0, 0), ": empty"),
        (pa.table({}), ": empty"),
        (pa.table({"train": [1, 2]}), "1: field 'question' is missing"),
        (pa.table({"train": [{"question": "What?"}]}), "1: field 'choices' is missing"),
        (pa.table({"other": ["x"]}), "1: field 'question' is missing"),
        (pa.table([["a"], ["b"]], names=["question", "question"]), "1: field 'choices' is missing"),
        (FEW.drop_columns("answer"), "1: field 'answer' is missing"),
        (FEW.set_column(2, "answer", [[2.0]]), "1: field 'answer' is 2.0."),
        (FEW.set_column(2, "answer", [[True]]), "1: field 'answer' is True."),
        (FEW.set_column(2, "answer", [[float("nan")]]), "1: field 'answer' is nan."),
        (FEW.set_column(2, "answer", [[2**63 - 1]]), "1: field 'answer' is 9223372036854775807."),
        (FEW.set_column(3, "subject", [[b"anatomy"]]), "1: field 'subject' is {'bytes': "),
        (FEW.set_column(3, "subject", [pa.array([10**9], pa.timestamp("s"))]), "1: field 'subject' is {'datetime': "),
        (FEW.set_column(1, "choices", [[[["a"]] * 4]]), "1: field 'choices' is [['a'"),
        (pa.table({"train": [GOOD, GOOD | {"answer": 4}]}), "2: field 'answer' is 4. It should be A to D, or 0 to 3."),
        (pa.table({"train": pa.array([None], pa.struct([("question", pa.string())]))}), "1: field 'question' is"),
    ],
)
def test_columns_of_other_types_with_other_values_are_told(tmp_path: Path, table: pa.Table, said: str) -> None:
    assert said in told(as_lines(tmp_path / "x.parquet", table))


def test_rows_in_one_struct_are_read_where_the_columns_of_other_splits_stand_beside_it(tmp_path: Path) -> None:
    row = {"train": GOOD, "question": None, "choices": None, "answer": None, "subject": None}
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    assert read_items(tmp_path / "x.jsonl") == [ITEM]


@pytest.mark.parametrize("kind", [np.int64, np.int8, np.uint8])
def test_an_answer_may_be_a_number_of_numpy(kind: Any) -> None:
    assert Item("What?", ("a", "b", "c", "d"), kind(2), "anatomy") == ITEM


def test_control_characters_are_data_and_are_escaped_in_messages(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(GOOD | {"question": "\x1b[2J\x00\u202e"}))
    assert read_items(path)[0].question == "\x1b[2J\x00\u202e"
    path.write_text(json.dumps(GOOD | {"answer": "\x1b[2J"}))
    assert r": field 'answer' is '\x1b[2J'" in told(path)
    (tmp_path / "\x1b[2J").mkdir()
    assert "\x1b" not in told(tmp_path)


@pytest.mark.parametrize("depth", [100, 900, 1000, 20_000, 100_000])
@pytest.mark.parametrize("field", ["answer", "train", "beside"])
def test_what_is_nested_deeply_is_told_or_left_aside(tmp_path: Path, depth: int, field: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(GOOD | {field: 1})[:-2] + "[" * depth + "]" * depth + "}")
    try:
        assert read_items(path) == [ITEM]
        assert field != "answer"
    except UserError as e:
        assert str(e).startswith(f"{path}:1: ") and "\n" not in str(e)


def test_lines_have_a_most(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text("\n" + json.dumps(GOOD | {"question": "a" * LONGEST_ITEM}))
    assert told(path).startswith(f":2: longer than {LONGEST_ITEM} bytes")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["x.jsonl", "x.parquet"])
def test_files_have_a_most(tmp_path: Path, name: str) -> None:
    with (tmp_path / name).open("wb") as file:
        file.truncate(LONGEST_FILE + 1)
    assert told(tmp_path / name).startswith(f": longer than {LONGEST_FILE} bytes")


@pytest.mark.slow
@pytest.mark.parametrize("length", [10**6, 5 * 10**7])
def test_a_text_that_is_written_once_and_stands_in_every_row_is_told(tmp_path: Path, length: int) -> None:
    """Lines without end, and more memory than there may be."""
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["a" * length]))
    columns = {name: pa.array([GOOD[name]] * 1000) for name in ("choices", "answer", "subject")}
    pq.write_table(pa.table({"question": text, **columns}), tmp_path / "x.parquet")
    said = told(tmp_path / "x.parquet")
    assert said.startswith(": not a Parquet file that can be read (its rows ") and " than " in said


def test_what_is_no_plain_file_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "test.parquet").mkdir()
    (tmp_path / "device.jsonl").symlink_to("/dev/zero")
    assert "test.parquet: this is a folder" in _refusal(tmp_path, "test")
    assert told(tmp_path / "device.jsonl") == ": this is a device. A plain file is needed."
    for name in ("a\x00b.jsonl", "a" * 5000 + ".jsonl", os.fsdecode(b"\xff.jsonl")):
        assert "no such file" in _refusal(tmp_path / name)


def _refusal(source: Path, split: str | None = None) -> str:
    with pytest.raises(UserError) as error:
        read_items(source, split)
    return str(error.value)
