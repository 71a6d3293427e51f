"""Data in MMLU's layout: what is read, how a question is put, and what a mistake is answered with."""

import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.errors import UserError
from bench.train.data import FIELDS, Item, prompt, read_items, target
from bench.train.parquet import lines
from tests.mutations import FUZZ, damaged, damaged_json_lines

GOOD: dict[str, Any] = {"question": "What?", "choices": ["a", "b", "c", "d"], "answer": 2, "subject": "anatomy"}
ITEM = Item("What?", ("a", "b", "c", "d"), 2, "anatomy")


def line(**changes: Any) -> bytes:
    fields = {key: value for key, value in (GOOD | changes).items() if value is not ...}
    return json.dumps(fields, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (line(answer=...), "field 'answer' is missing"),
        (line(question=...), "field 'question' is missing"),
        (line(choices=...), "field 'choices' is missing"),
        (line(subject=...), "field 'subject' is missing"),
        (line(answer="E"), "field 'answer' is 'E'. It should be A to D, or 0 to 3."),
        (line(answer=4), "field 'answer' is 4."),
        (line(answer=-1), "field 'answer' is -1."),
        (line(answer=1.0), "field 'answer' is 1.0."),
        (line(answer=True), "field 'answer' is True."),
        (line(answer=["A"]), "field 'answer' is ['A']."),
        (line(choices=["a", "b", "c"]), "field 'choices' is ['a', 'b', 'c']. It should be a list of four texts."),
        (line(choices=["a", "b", "c", 4]), "field 'choices' is"),
        (line(choices="abcd"), "field 'choices' is 'abcd'"),
        (line(question=None), "field 'question' is None. It should be a text."),
        (line(subject=3), "field 'subject' is 3"),
        (json.dumps(GOOD | {"question": "\ud83d?"}).encode(), "field 'question' is '\\ud83d?', which holds half of"),
        (json.dumps(GOOD | {"choices": ["a", "b", "c", "\udc00"]}).encode(), "field 'choices' is '\\udc00', which"),
        (b"[1, 2]", "a list, where an item with question, choices, answer, subject is expected"),
        (b'{"question": "What?', "not valid JSON"),
        (line(question="caf\u00e9").decode().encode("latin-1"), "not UTF-8 text (byte 17"),
        (line().decode().encode("utf-16"), "not UTF-8 text"),
    ],
)
def test_a_mistake_is_told_by_file_line_and_field(tmp_path: Path, bad: bytes, told: str) -> None:
    path = tmp_path / "train.jsonl"
    path.write_bytes(line() + b"\n\n" + bad + b"\n" + line() + b"\n")
    with pytest.raises(UserError) as error:
        read_items(path)
    assert str(error.value).startswith(f"{path}:3: ") and told in str(error.value)
    with pytest.raises(UserError, match=r"train\.jsonl:3: "):
        read_items(tmp_path, "train")


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_file_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=r"train\.jsonl: empty"):
        read_items(tmp_path / "train.jsonl")


def test_letters_numbers_marks_and_further_fields_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    lines = [line(), line(answer="C"), line(source="auxiliary"), line(subject="")]
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    assert read_items(path) == [ITEM, ITEM, ITEM, Item("What?", ITEM.choices, 2, "")]


def test_a_folder_has_its_splits(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_bytes(line(question="test"))
    with pytest.raises(UserError, match=r"holds no train\.jsonl or auxiliary_train\.jsonl \(found: test\.jsonl\)"):
        read_items(tmp_path, "train")
    (tmp_path / "auxiliary_train.jsonl").write_bytes(line(question="train"))
    assert [i.question for i in read_items(tmp_path, "train")] == ["train"]
    assert [i.question for i in read_items(str(tmp_path), "test")] == ["test"]
    assert [i.question for i in read_items(tmp_path)] == ["train", "test"]


def test_a_downloaded_hub_dataset_is_read(tmp_path: Path) -> None:
    """cais/mmlu as `hf download` leaves it: Parquet files of the configuration all, answers as class numbers."""
    import pandas as pd

    (tmp_path / "all").mkdir()
    frame = pd.DataFrame([GOOD, GOOD | {"answer": 0}])
    frame.to_parquet(tmp_path / "all" / "auxiliary_train-00000-of-00001.parquet")
    assert [i.answer for i in read_items(tmp_path, "train")] == [2, 0]
    frame.assign(answer=7).to_parquet(tmp_path / "all" / "test-00000-of-00001.parquet")
    with pytest.raises(UserError, match=r"test-00000-of-00001\.parquet: row 1: field 'answer' is 7"):
        read_items(tmp_path, "test")
    (tmp_path / "all" / "test-00000-of-00001.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(UserError, match=r"parquet: not a Parquet file that can be read"):
        read_items(tmp_path, "test")


def test_a_question_is_put_as_the_harness_puts_it() -> None:
    jinja2, yaml = pytest.importorskip("jinja2"), pytest.importorskip("yaml")
    pytest.importorskip("lm_eval")
    task = yaml.safe_load((resources.files("lm_eval") / "tasks/mmlu/default/_default_template_yaml").read_text())
    item = Item(" Two\nlines? ", ("1", " 2", "{3}", ""), 3, "anatomy")
    fields = {"question": item.question, "choices": list(item.choices)}
    assert prompt(item) == jinja2.Template(task["doc_to_text"]).render(fields)
    assert target(item) == f"{task.get('target_delimiter', ' ')}{task['doc_to_choice'][item.answer]}"


@pytest.mark.parametrize("source", ["no/such/folder", "./train.jsonl", "train.jsonl/"])
def test_what_is_neither_a_file_nor_an_id_is_told_at_once(source: str) -> None:
    with pytest.raises(UserError, match="no such file or folder, and not the id of a Hub dataset"):
        read_items(source)


@pytest.mark.parametrize(
    ("wrapped", "answer"), [(True, "int64"), (False, "int8"), (True, "letter"), (False, "dictionary")]
)
def test_parquet_with_each_row_in_one_struct_is_read(tmp_path: Path, wrapped: bool, answer: str) -> None:
    """cais/mmlu's auxiliary_train has one column, `train`, that holds the item."""
    rows = [{**GOOD, "answer": "C" if answer in ("letter", "dictionary") else 2, "other": 1.5}] * 3
    table = pa.Table.from_pylist(rows)
    if answer == "dictionary":
        table = table.set_column(table.schema.get_field_index("answer"), "answer", table["answer"].dictionary_encode())
    if answer == "int8":
        table = table.set_column(table.schema.get_field_index("answer"), "answer", table["answer"].cast(pa.int8()))
    if wrapped:
        table = pa.table({"train": pa.StructArray.from_arrays([c.combine_chunks() for c in table], table.column_names)})
    pq.write_table(table, tmp_path / "auxiliary_train-00000-of-00001.parquet")
    assert read_items(tmp_path, "train") == [ITEM] * 3
    (tmp_path / "train.jsonl").write_bytes(json.dumps({"train": GOOD}).encode())
    assert read_items(tmp_path / "train.jsonl") == [ITEM]


def test_parquet_of_something_else_is_told(tmp_path: Path) -> None:
    pq.write_table(pa.table({"train": [1, 2]}), tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"x\.parquet: row 1: field 'question' is missing"):
        read_items(tmp_path / "x.parquet")


@pytest.mark.parametrize("name", ["x.jsonl", "x.parquet"])
def test_what_is_no_file_is_told_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}: this is a named pipe"):
        read_items(tmp_path / name)
    with pytest.raises(UserError, match=rf"{name}: this is a named pipe"):
        read_items(tmp_path)


def hold(folder: Path, data: st.DataObject, process: bool) -> None:
    """Damaged data are read, or refused in one line that names the file. process: Parquet in a process of its own, as
    a command reads it; else in this one, which takes a hundredth of the time."""
    path = folder / data.draw(st.sampled_from(("x.parquet",) if process else ("x.jsonl", "x.parquet")))
    if path.suffix == ".jsonl":
        path.write_bytes(data.draw(damaged_json_lines([GOOD, {"train": GOOD}, GOOD | {"answer": "C"}])))
    else:
        pq.write_table(pa.Table.from_pylist(data.draw(st.sampled_from(([GOOD] * 3, [{"train": GOOD}] * 3)))), path)
        content = data.draw(damaged(path.read_bytes()))
        path.write_bytes(content)
        if not process:
            path = folder / "x.jsonl"
            try:
                path.write_bytes(b"".join(lines(content, (*FIELDS, "train"), 10**6)))
            except ValueError as e:
                assert str(e) and "\n" not in str(e)
                return
    try:
        assert all(isinstance(item, Item) for item in read_items(path))
    except UserError as e:
        assert path.name in str(e) and "\n" not in str(e)


@pytest.mark.slow
@settings(max_examples=4000, **FUZZ)  # half of them JSON lines, half Parquet
@given(data=st.data())
def test_any_damage_is_told_or_read(tmp_path: Path, data: st.DataObject) -> None:
    hold(tmp_path, data, process=False)


@pytest.mark.slow
@settings(max_examples=100, **FUZZ)
@given(data=st.data())
def test_damage_is_told_or_read_by_a_process_of_its_own(tmp_path: Path, data: st.DataObject) -> None:
    hold(tmp_path, data, process=True)


@settings(max_examples=50, **FUZZ)
@given(data=st.data())
def test_some_damage_is_told_or_read(tmp_path: Path, data: st.DataObject) -> None:
    hold(tmp_path, data, process=False)
