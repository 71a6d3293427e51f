"""The JSON Schemas in docs/schema: current, and true of real folders by a validator that shares no code with them."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench import read
from bench.case.columns import RECORDED
from bench.case.schema import SCHEMA
from bench.errors import UserError
from bench.record.schema import FILES
from tests.conftest import ROOT, Bench

FOLDER = ROOT / "docs" / "schema"
REFERENCE = ROOT / "results" / "cpu" / "reference"
KINDS: dict[str, Any] = {
    "string": lambda v: isinstance(v, str),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
}
ABOUT = {"$schema", "$id", "title", "version", "description"}
NUMBERS = {
    "minimum": lambda v, at: v >= at, "maximum": lambda v, at: v <= at,
    "exclusiveMinimum": lambda v, at: v > at, "exclusiveMaximum": lambda v, at: v < at,
}  # fmt: skip


def wrong(value: Any, schema: dict[str, Any]) -> list[str]:
    """What JSON Schema 2020-12 has against a value, of the keywords that ours use. Any other is an error here."""
    found: list[str] = []
    for word, told in schema.items():
        if word == "type":
            ok = any(KINDS[kind](value) for kind in ([told] if isinstance(told, str) else told))
        elif word in NUMBERS:
            ok = not KINDS["number"](value) or NUMBERS[word](value, told)
        elif word == "maxLength":
            ok = not isinstance(value, str) or len(value) <= told
        elif word == "pattern":
            ok = not isinstance(value, str) or re.search(told, value) is not None
        elif word == "const":
            ok = type(value) is type(told) and value == told
        elif word == "required":
            ok = not isinstance(value, dict) or set(told) <= set(value)
        elif word == "anyOf":
            ok = any(not wrong(value, one) for one in told)
        elif word == "items":
            ok = not isinstance(value, list) or not [x for v in value for x in wrong(v, told)]
        elif word == "propertyNames":
            ok = not isinstance(value, dict) or not [x for v in value for x in wrong(v, told)]
        elif word in ("properties", "additionalProperties"):
            own = schema.get("properties", {})
            parts = value.items() if isinstance(value, dict) and told is not True else ()
            mine = ((v, own[k] if word == "properties" else told) for k, v in parts
                    if (k in own) == (word == "properties"))  # fmt: skip
            ok = not [x for v, one in mine for x in wrong(v, one)]
        else:
            assert word in ABOUT, f"this validator does not know {word}"
            ok = True
        found += [] if ok else [f"{word} {told}: {str(value)[:80]}"]
    return found


def schema(file: str) -> dict[str, Any]:
    return json.loads((FOLDER / FILES[file]).read_text())


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def objects(folder: Path) -> dict[str, list[Any]]:
    return {"run.json": [json.loads((folder / "run.json").read_text())]} | {
        name: lines(folder / name) for name in ("rows.jsonl", "samples.jsonl")
    }


def test_the_committed_schemas_are_current(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.record.schema"]
    subprocess.run([*command, tmp_path], cwd=ROOT, check=True)
    made, committed = ({p.name: p.read_text() for p in folder.iterdir()} for folder in (tmp_path, FOLDER))
    assert made == committed, "python -m bench.record.schema docs/schema"
    printed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert json.loads(printed) == {name: json.loads(text) for name, text in made.items()}


def test_they_say_their_dialect_and_version_and_every_column() -> None:
    for file in FILES:
        found = schema(file)
        assert found["$schema"] == "https://json-schema.org/draft/2020-12/schema" and found["version"] == SCHEMA
    rows = schema("rows.jsonl")
    assert tuple(rows["properties"]) == RECORDED and all(x["description"] for x in rows["properties"].values())


@pytest.mark.parametrize("name", ["table1", "table2", "peers"])
def test_real_folders_validate(name: str) -> None:
    for file, found in objects(REFERENCE / name).items():
        assert found and not [(o, x) for o in found if (x := wrong(o, schema(file)))][:1]


@pytest.mark.slow
def test_a_new_run_validates_with_every_column(bench: Bench, sweep_file: Path, tmp_path: Path) -> None:
    assert bench("run", sweep_file, "--gpu", "cpu", "--out", tmp_path / "out").returncode == 0
    for file, found in objects(tmp_path / "out").items():
        assert found and not [x for o in found for x in wrong(o, schema(file))]
    assert all(tuple(r) == RECORDED for r in lines(tmp_path / "out" / "rows.jsonl"))


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("rows.jsonl", {"n": -1}), ("rows.jsonl", {"n": 1.5}), ("rows.jsonl", {"noisy": "True"}),
        ("rows.jsonl", {"median_ms": 0}), ("rows.jsonl", {"power_capped": 1.01}), ("rows.jsonl", {"status": None}),
        ("samples.jsonl", {"samples_ms": ["1"]}), ("samples.jsonl", {"samples_ms": [0.0]}),
        ("run.json", {"schema": SCHEMA + 1}), ("run.json", {"run_id": "../up"}), ("run.json", {"dirty": 1}),
        ("run.json", {"ceilings": {"fp32_gflops": []}}), ("run.json", {"invocations": [{"cases": "18"}]}),
    ],
)  # fmt: skip
def test_what_the_reader_refuses_the_schema_refuses(tmp_path: Path, file: str, change: dict[str, Any]) -> None:
    good = objects(REFERENCE / "table1")[file][0]
    assert not wrong(good, schema(file)) and wrong(good | change, schema(file))
    shutil.copytree(REFERENCE / "table1", tmp_path / "x")
    path = tmp_path / "x" / file
    path.write_text("\n".join([json.dumps(good | change), *path.read_text().splitlines()[1:]]) + "\n")
    if file == "run.json":
        path.write_text(json.dumps(good | change))
    with pytest.raises(UserError, match=next(iter(change))):
        read(tmp_path / "x")


def test_a_missing_key_is_refused() -> None:
    for file, found in objects(REFERENCE / "table1").items():
        key = "run_id" if file == "run.json" else "case_id"
        assert wrong({k: v for k, v in found[0].items() if k != key}, schema(file))
