"""YAML as people write it: traps caught or read as meant, places known by their line."""

from pathlib import Path

import pytest

from bench.errors import UserError
from bench.yamlfile import parse_yaml

FILE = Path("some.yaml")


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("3e-4", 3e-4),
        ("1E5", 1e5),
        (".5", 0.5),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("012", 12),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("~", None),
        ("'8'", "8"),
        ("[1, 2]", [1, 2]),
    ],
)
def test_scalars_are_read_as_meant(text: str, meant: object) -> None:
    value = parse_yaml(f"key: {text}", FILE).value["key"]
    assert value == meant and type(value) is type(meant)


def test_lines_of_keys_and_items() -> None:
    read = parse_yaml("a:\n  b: 1\n  c:\n    - x\n    - y\n", FILE)
    assert read.line(("a", "b")) == 2
    assert read.line(("a", "c", 1)) == 5
    assert read.line(("a", "missing")) == 1, "the nearest place around it"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", "some.yaml:3: key 'a' stands twice, first on line 1"),
        ("a: [1\n", "some.yaml:2: not valid YAML"),
        ("a: &x [*x]\n", "contains itself"),
        ("1: 2\n", "keys are plain text"),
        ("? [a]\n: 1\n", "some.yaml:1"),
        ("a: !!python/object:os.system x\n", "some.yaml:1: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "not valid YAML"),
        ("[" * 3000, "some.yaml"),
        ("a: \x07", "not valid YAML"),
        ("a: !!int nonsense", "some.yaml"),
        ("a: !!float x", "some.yaml"),
        ("a: !!timestamp nonsense", "some.yaml"),
        ("a: !!binary ä", "some.yaml"),
        ("a: " + "9" * 5000, "some.yaml"),
        ("a: &a [1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
         "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]", "too many values"),
    ],
)  # fmt: skip
def test_what_is_not_valid_is_named_with_its_place(text: str, says: str) -> None:
    with pytest.raises(UserError) as e:
        parse_yaml(text, FILE)
    assert says in str(e.value)
    assert "\n" not in str(e.value)
