"""YAML files that people write, read strictly: line numbers for every key, and none of YAML 1.1's traps.

PyYAML reads YAML 1.1, where 3e-4 is a string, `no` is False, 012 is octal, 1:30 is sixty-based, and of a repeated key
the last one wins in silence. Here scalars follow YAML 1.2's core schema and a repeated key is an error.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from bench.errors import UserError, did_you_mean, short
from bench.reading import read_text

Where = tuple[str | int, ...]


@dataclass(frozen=True)
class YamlFile:
    """The value of a file, and the line of each key and item by its path from the top."""

    path: Path
    value: Any
    lines: dict[Where, int]

    def line(self, where: Where) -> int:
        """The line of a place in the file, or of the nearest place around it."""
        while where not in self.lines and where:
            where = where[:-1]
        return self.lines.get(where, 1)


class _Loader(yaml.SafeLoader):
    """SafeLoader with the scalars of YAML 1.2's core schema (yaml.org/spec/1.2.2, chapter 10.3)."""

    yaml_implicit_resolvers = {}  # noqa: RUF012  # PyYAML's way to start without 1.1's


# (type, pattern of the whole scalar, the characters it may begin with); the first match counts, so int before float.
_SCALARS = (
    ("null", r"(?:null|Null|NULL|~|)", ["n", "N", "~", ""]),
    ("bool", r"(?:true|True|TRUE|false|False|FALSE)", [*"tTfF"]),
    ("int", r"[-+]?[0-9]+", [*"-+0123456789"]),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", [*"-+.0123456789"]),
    ("float", r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))", [*"-+."]),
)
for _kind, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"^{_pattern}\Z"), _first)

_MOST = 2**20  # bytes of a file
_MOST_VALUES = 100_000  # of which aliases make more than a file holds
_MOST_DIGITS = 18  # of an integer


def load_yaml(path: Path) -> YamlFile:
    """Reads one YAML document. Raises UserError with file and line where it is not valid."""
    return parse_yaml(read_text(path, _MOST), path)


def parse_yaml(text: str, path: Path) -> YamlFile:
    """The same for a text already read; `path` only names it in messages."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[Where, int] = {}
        value = None if node is None else _construct(node, (), lines, path, ())
        return YamlFile(path, value, lines)
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        why, line = e.problem or e.context, mark.line if mark else 0
    except yaml.reader.ReaderError as e:
        why, line = f"{e.reason} {e.character!r}", text.count("\n", 0, e.position)
    except RecursionError:
        why, line = "nested too deeply", loader.line if loader else 0
    except (yaml.YAMLError, ValueError, OverflowError) as e:  # an escape of what is no character, among others
        why, line = str(e), loader.line if loader else 0
    finally:
        if loader is not None:
            loader.dispose()
    raise UserError(f"{path}:{line + 1}: not valid YAML ({' '.join(str(why).split())[:200]})")


def _construct(node: yaml.Node, where: Where, lines: dict[Where, int], path: Path, above: tuple[int, ...]) -> Any:
    lines.setdefault(where, node.start_mark.line + 1)
    line = node.start_mark.line + 1
    if id(node) in above:
        raise UserError(f"{path}:{line}: an alias that contains itself")
    if len(lines) > _MOST_VALUES:
        raise UserError(
            f"{path}:{lines[where[:1]]}: too many values (aliases multiply them): more than {_MOST_VALUES:,}"
        )
    above = (*above, id(node))
    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            at = key_node.start_mark.line + 1
            if key_node.tag != "tag:yaml.org,2002:str":
                raise UserError(f"{path}:{at}: a key of type {key_node.tag.rpartition(':')[2]!r}; keys are plain text")
            key = _scalar(key_node.value, "str", f"{path}:{at}")
            if key in result:
                raise UserError(f"{path}:{at}: key {short(key)} stands twice, first on line {lines[(*where, key)]}")
            lines[(*where, key)] = at
            result[key] = _construct(value_node, (*where, key), lines, path, above)
        return result
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return [_construct(n, (*where, i), lines, path, above) for i, n in enumerate(node.value)]
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if not isinstance(node, yaml.ScalarNode) or kind not in _READ:
        raise UserError(f"{path}:{line}: not valid YAML here (type {kind!r}; plain mappings, lists and scalars are)")
    return _scalar(node.value, kind, f"{path}:{line}")


# A scalar of each type out of its text. 012 is twelve, where YAML 1.1 reads ten.
_READ: dict[str, Callable[[str], Any]] = {
    "null": lambda _: None,
    "bool": lambda text: text.lower() == "true",
    "int": int,
    "float": lambda text: float(re.sub(r"\.(?=[ian])", "", text.lower())),
    "str": str,
}


def _scalar(text: str, kind: str, where: str) -> Any:
    """A scalar of the type that its look or its tag says. Raises UserError where it is none."""
    kinds = ("int", "float") if kind == "float" else (kind,)
    if kind != "str" and not any(re.fullmatch(pattern, text) for k, pattern, _ in _SCALARS if k in kinds):
        raise UserError(f"{where}: {short(text)} is no value of type {kind!r}. Leave the tag out.")
    if kind == "int" and len(text.lstrip("+-0")) > _MOST_DIGITS:
        raise UserError(f"{where}: an integer of {len(text)} digits. At most {_MOST_DIGITS} are read.")
    if not text.isascii() and not text.isprintable() and any("\ud800" <= c <= "\udfff" for c in text):
        raise UserError(f"{where}: {short(text)} holds half of a character (a surrogate), which no file can.")
    return _READ[kind](text)


class Strict(BaseModel):
    """A part of a file: no unknown keys, no conversion of types, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Part = TypeVar("Part", bound=Strict)


def read_strict(path: Path, model: type[Part], what: str) -> tuple[Part, YamlFile]:
    """A file as `model`; what: what it is, as in 'a sweep'.

    Raises UserError naming file, line, key, what was found and what would be valid.
    """
    read = load_yaml(path)
    if not isinstance(read.value, dict):
        raise UserError(f"{path}:1: {what} is a mapping with the keys {', '.join(model.model_fields)}")
    try:
        return model.model_validate(read.value), read
    except ValidationError as e:
        raise UserError(_sentence(read, e, model)) from None


def place(read: YamlFile, where: Where) -> str:
    """'file:line: key' of a place in a file."""
    key = ".".join(str(p) for p in where)
    shown = key if len(key) <= 200 else key[:197] + "..."
    return f"{read.path}:{read.line(where)}" + (f": {shown}" if shown else "")


def _sentence(read: YamlFile, e: ValidationError, model: type[BaseModel]) -> str:
    first = e.errors(include_url=False)[0]
    where: Where = tuple(first["loc"])
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        valid = _valid_keys(model, where)
        return f"{place(read, where)}: unknown key.{did_you_mean(where[-1], valid)} Keys here: {', '.join(valid)}."
    if first["type"] == "missing" or not where:
        return f"{place(read, where)}: {message}"
    found = short(first["input"])
    return f"{place(read, where)}: {'' if message.startswith(repr(first['input'])) else f'{found}: '}{message}"


def _valid_keys(model: type[BaseModel], where: Where) -> list[str]:
    """The keys beside a place: those of the model that its parents' annotations lead to."""
    for key in where[:-1]:
        if isinstance(key, str) and key in model.model_fields:
            model = _model_in(model.model_fields[key].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for a in get_args(annotation) if (found := _model_in(a))), None)
