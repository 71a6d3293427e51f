"""What an evaluation kept before it was cut off, with any damage: refused in one sentence, or of the pieces asked."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from bench.accuracy.partial import Partial
from bench.accuracy.question import Piece
from bench.accuracy.result import summary
from bench.errors import UserError, printable
from tests.mcq import make_items
from tests.mutations import damaged_json_lines

ASKED = {"source": {"name": "m", "files": {"model.safetensors": [10, 20]}, "commit": None}, "data": "00ff", "shots": 0}
PIECES = [Piece(subject, first, tuple(make_items(8)), ()) for subject in ("sociology", "astronomy") for first in (0, 8)]
LINES = [
    {"settings": ASKED},
    *({"subject": p.subject, "first": p.first, "items": 8, "correct": 5, "cut": 1} for p in PIECES[:3]),
]


def hold(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        counts = Partial(path, ASKED, PIECES).counts
    except UserError as e:
        said = str(e)
        assert said.startswith(str(path)) and len(said.splitlines()) == 1 and said == printable(said), said
        assert path.read_bytes() == data, "what is refused is left as it is"
    else:
        assert counts.keys() <= {p.key for p in PIECES}
        assert all(0 <= c.correct <= c.items == 8 and 0 <= c.cut <= 8 for c in counts.values())
        assert not counts or 0 <= summary(counts.values())["average"] <= 100
        assert json.loads(path.read_text().splitlines()[0]) == {"settings": ASKED}
        assert Partial(path, ASKED, PIECES).counts == counts


@pytest.mark.slow
@settings(max_examples=2000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=damaged_json_lines(LINES))
def test_any_damage_is_refused_in_a_sentence_or_read(tmp_path: Path, data: bytes) -> None:
    hold(tmp_path / "accuracy.partial.jsonl", data)


@settings(max_examples=50, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(data=damaged_json_lines(LINES))
def test_some_damage_is_refused_in_a_sentence_or_read(tmp_path: Path, data: bytes) -> None:
    hold(tmp_path / "accuracy.partial.jsonl", data)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ({}, "it has no subject"),
        ({"correct": 9}, "correct or cut is above items"),
        ({"correct": -1}, "correct is -1"),
        ({"items": True}, "items is True"),
        ({"first": 16}, "is of no piece of this evaluation"),
        ({"subject": "x"}, "is of no piece of this evaluation"),
        ({"items": 10**6}, "is of no piece of this evaluation"),
    ],
)
def test_a_line_that_cannot_be_is_named(line: dict[str, object], told: str, tmp_path: Path) -> None:
    path = tmp_path / "accuracy.partial.jsonl"
    last = LINES[-1] | line if line else {}
    path.write_text("".join(json.dumps(each) + "\n" for each in (*LINES[:-1], last)))
    with pytest.raises(UserError) as error:
        Partial(path, ASKED, PIECES)
    assert str(error.value).startswith(str(path)) and told in str(error.value)
