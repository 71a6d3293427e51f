"""YAML as people write it: traps caught or read as meant, places known by their line."""

import os
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.yamlfile import load_yaml, parse_yaml

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


LAUGHS = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3\n", "some.yaml:3: key 'a' stands twice, first on line 1"),
        ("a: [1\n", "some.yaml:2: not valid YAML"),
        ("a: &x [*x]\n", "some.yaml:1: an alias that contains itself"),
        ("1: 2\n", "some.yaml:1: a key of type 'int'; keys are plain text"),
        ("? [a]\n: 1\n", "some.yaml:1"),
        ("a: !!python/object:os.system x\n", "some.yaml:1: not valid YAML"),
        ("a: 1\n---\nb: 2\n", "some.yaml:2: not valid YAML"),
        ("\n" + "{a: " * 3000, "some.yaml:2: not valid YAML (nested too deeply)"),
        ("\n\na: \x07", "some.yaml:3: not valid YAML (special characters are not allowed"),
        ("\na: 1\nb: !!int nonsense", "some.yaml:3: 'nonsense' is no value of type 'int'. Leave the tag out."),
        ("a: !!int 1.5", "some.yaml:1: '1.5' is no value of type 'int'"),
        ("a: !!int ''", "some.yaml:1: '' is no value of type 'int'"),
        ("a: !!float x", "some.yaml:1: 'x' is no value of type 'float'"),
        ("a: !!float ''", "some.yaml:1: '' is no value of type 'float'"),
        ("a: !!bool x", "some.yaml:1: 'x' is no value of type 'bool'"),
        ("a: !!bool yes", "some.yaml:1: 'yes' is no value of type 'bool'"),
        ("a: !!null x", "some.yaml:1: 'x' is no value of type 'null'"),
        ("a: !!timestamp nonsense", "some.yaml:1: not valid YAML here (type 'timestamp'"),
        ("a: !!binary ä", "some.yaml:1"),
        ("a: !!str {b: 1}", "some.yaml:1: not valid YAML here (type 'str'"),
        ("a: !!map [b]", "some.yaml:1: not valid YAML here (type 'map'"),
        ("a: !!seq x", "some.yaml:1: not valid YAML here (type 'seq'"),
        ("a: !!set {b}", "some.yaml:1: not valid YAML here (type 'set'"),
        ("a: !!omap [b: 1]", "some.yaml:1: not valid YAML here (type 'omap'"),
        ("b: &b {c: 1}\na:\n  !!merge <<: *b\n", "some.yaml:3: a key of type 'merge'"),
        ("a: *nowhere", "some.yaml:1: not valid YAML (found undefined alias 'nowhere')"),
        ("\na: " + "9" * 10_000, "some.yaml:2: an integer of 10000 digits. At most 18 are read."),
        ("a: -1000000000000000000", "some.yaml:1: an integer of 20 digits"),
        ('a: "\\uD800"', "some.yaml:1: '\\ud800' holds half of a character"),
        ('"\\uDFFF": 1', "some.yaml:1: '\\udfff' holds half of a character"),
        ('\na: "\\UFFFFFFFF"', "some.yaml:2: not valid YAML ("),
        ("%YAML 9.9\n---\na: 1", "some.yaml:1: not valid YAML"),
        ("a: !<%ff> x", "some.yaml:1: not valid YAML"),
        (LAUGHS, "some.yaml:6: too many values (aliases multiply them): more than 100,000"),
    ],
)  # fmt: skip
def test_what_is_not_valid_is_named_with_its_place(text: str, says: str) -> None:
    with pytest.raises(UserError) as e:
        parse_yaml(text, FILE)
    assert str(e.value).startswith(says)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("!!int 12", 12), ("!!float 3", 3.0), ("!!float .5", 0.5), ("!!float -.INF", float("-inf")), ("!!str 12", "12"),
        ("!!bool True", True), ("!!null ''", None), ("&a 8", 8), ("<<", "<<"), ("999999999999999999", 10**18 - 1),
        ("00000000000000000000000000012", 12), ("-.inf", float("-inf")), (".NaN", "nan"),
    ],
)  # fmt: skip
def test_tags_that_fit_are_read(text: str, meant: object) -> None:
    value = parse_yaml(f"key: {text}", FILE).value["key"]
    assert (str(value) if meant == "nan" else value) == meant


def test_a_file_is_read_up_to_a_size_and_never_waited_for(tmp_path: Path) -> None:
    (tmp_path / "long.yaml").write_text("a: " + "x" * 2**20)
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    for name, says in (("long", "longer than 1048576 bytes"), ("pipe", "a named pipe"), ("folder", "a folder")):
        with pytest.raises(UserError, match=rf"{name}\.yaml: .*{says}"):
            load_yaml(tmp_path / f"{name}.yaml")
