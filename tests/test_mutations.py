"""The damage that other tests do to files is of all the kinds that they count on."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings

from tests.mutations import damaged_json, damaged_json_lines

DOCUMENT = {"rank": 4, "shapes": {"q_proj": [4, 8]}, "name": "a"}


def kinds(data: bytes) -> set[str]:
    """What has become of DOCUMENT."""
    try:
        value: Any = json.loads(data)
    except UnicodeDecodeError:
        return {"not text"}
    except RecursionError:
        return {"too deep"}
    except ValueError:
        return {"not JSON"}
    if not isinstance(value, dict):
        return {"no object"}
    rank = value.get("rank", "dropped")
    shapes = value.get("shapes", DOCUMENT["shapes"])
    return {
        "dropped" if rank == "dropped" else "null" if rank is None else f"another {type(rank).__name__}",
        *(["added"] if value.keys() - DOCUMENT.keys() else []),
        *(["changed within"] if shapes != DOCUMENT["shapes"] and isinstance(shapes, dict) else []),
    }


def test_every_kind_of_damage_occurs() -> None:
    seen: set[str] = set()
    lines: set[int] = set()

    @settings(max_examples=400, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(damaged_json(DOCUMENT), damaged_json_lines([DOCUMENT] * 3))
    def look(data: bytes, several: bytes) -> None:
        seen.update(kinds(data))
        lines.add(len(several.split(b"\n")))

    look()
    assert seen >= {"not text", "too deep", "not JSON", "no object", "dropped", "null", "added", "changed within"}
    assert seen >= {f"another {kind}" for kind in ("int", "float", "str", "list")}
    assert lines > {3, 4, 5}
