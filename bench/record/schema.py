"""JSON Schema of the files of a results folder, made of what reads them.

`python -m bench.record.schema docs/schema` writes a file for each; without a folder all of them are printed.
"""

import json
import sys
from pathlib import Path
from typing import Any

from bench.case.columns import ROW
from bench.case.schema import SCHEMA
from bench.record.read import ROWS, RUN, SAMPLES, shapes

DIALECT = "https://json-schema.org/draft/2020-12/schema"
FILES = {ROWS: "rows.schema.json", SAMPLES: "samples.schema.json", RUN: "run.schema.json"}
TITLES = {
    ROWS: "A line of rows.jsonl: one case, pass, clock and repeat. null: not measured. Beyond this schema, the three"
    " columns of an interval are in ascending order.",
    SAMPLES: "A line of samples.jsonl: the raw samples of a row. Beyond this schema, rounds has an entry for each"
    " sample.",
    RUN: "run.json: where the numbers of a results folder come from.",
}


def schemas() -> dict[str, dict[str, Any]]:
    """The schema of each file, by its name in FILES."""
    found = {}
    for file, shape in shapes().items():
        made = shape.json_schema()
        plain = _plain(made, made.get("$defs", {}))
        about = {"$id": f"urn:lorabench:{SCHEMA}:{file}", "title": TITLES[file], "version": SCHEMA}
        found[FILES[file]] = {"$schema": DIALECT} | about | plain
    of_rows = found[FILES[ROWS]]["properties"]
    for column in ROW:
        if column.derived:
            del of_rows[column.name]
        else:
            unit = f", in {column.unit}" if column.unit else ""
            of_rows[column.name]["description"] = column.meaning + unit
    del of_rows["median_ms"]["minimum"]
    of_rows["median_ms"]["exclusiveMinimum"] = 0  # nothing takes no time
    found[FILES[RUN]]["properties"]["schema"] = {"const": SCHEMA, "description": "version of the files in the folder"}
    return found


def _plain(found: Any, defs: dict[str, Any]) -> Any:
    """Without references and names that only pydantic gave; what may be null says so in its type."""
    if isinstance(found, list):
        return [_plain(x, defs) for x in found]
    if not isinstance(found, dict):
        return found
    if name := found.get("$ref"):
        return _plain(defs[name.removeprefix("#/$defs/")], defs)
    made = {k: _plain(v, defs) for k, v in found.items() if k != "$defs" and not (k == "title" and isinstance(v, str))}
    either = made.get("anyOf", [])
    if len(either) == 2 and either[1] == {"type": "null"} and isinstance(either[0].get("type"), str):
        made = {k: v for k, v in made.items() if k != "anyOf"} | either[0] | {"type": [either[0]["type"], "null"]}
    return made


def as_text(schema: dict[str, Any]) -> str:
    """As it stands in its file."""
    return json.dumps(schema, indent=1) + "\n"


if __name__ == "__main__":
    if sys.argv[1:]:
        folder = Path(sys.argv[1])
        folder.mkdir(parents=True, exist_ok=True)
        for name, schema in schemas().items():
            (folder / name).write_text(as_text(schema))
    else:
        print(as_text(schemas()), end="")
