"""YAML files that people write, read strictly: line numbers for every key, and none of YAML 1.1's traps.

PyYAML reads YAML 1.1, where 3e-4 is a string, `no` is False, 012 is octal, 1:30 is sixty-based, and of a repeated key
the last one wins in silence. Here scalars follow YAML 1.2's core schema and a repeated key is an error.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from bench.errors import UserError, did_you_mean, short

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
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^{_pattern}$"), _first)


def _decimal(loader: _Loader, node: yaml.ScalarNode) -> int:
    """012 is twelve, where YAML 1.1 reads ten."""
    return int(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _decimal)


def load_yaml(path: Path) -> YamlFile:
    """Reads one YAML document. Raises UserError with file and line where it is not valid."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror})") from None
    except UnicodeDecodeError as e:
        raise UserError(f"{path}: not UTF-8 text (byte {e.start})") from None
    return parse_yaml(text, path)


def parse_yaml(text: str, path: Path) -> YamlFile:
    """The same for a text already read; `path` only names it in messages."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        lines: dict[Where, int] = {}
        value = None if node is None else _construct(loader, node, (), lines, path, ())
        return YamlFile(path, value, lines)
    except yaml.MarkedYAMLError as e:
        mark = e.problem_mark or e.context_mark
        raise UserError(f"{path}:{mark.line + 1 if mark else 1}: not valid YAML ({e.problem or e.context})") from None
    except yaml.YAMLError as e:
        raise UserError(f"{path}: not valid YAML ({' '.join(str(e).split())})") from None
    except RecursionError:
        raise UserError(f"{path}: nested too deeply") from None
    except ValueError as e:  # an integer of thousands of digits, a tag whose text does not fit it
        raise UserError(f"{path}: a value cannot be read ({e})") from None
    finally:
        if loader is not None:
            loader.dispose()


def _construct(
    loader: _Loader, node: yaml.Node, where: Where, lines: dict[Where, int], path: Path, above: tuple[int, ...]
) -> Any:
    lines.setdefault(where, node.start_mark.line + 1)
    line = node.start_mark.line + 1
    if id(node) in above:
        raise UserError(f"{path}:{line}: an alias that contains itself")
    if len(lines) > 100_000:
        raise UserError(f"{path}:{line}: too many values (aliases multiply them)")
    above = (*above, id(node))
    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            at = key_node.start_mark.line + 1
            if key_node.tag != "tag:yaml.org,2002:str":
                raise UserError(f"{path}:{at}: a key of type {key_node.tag.rpartition(':')[2]!r}; keys are plain text")
            key = key_node.value
            if key in result:
                raise UserError(f"{path}:{at}: key {key!r} stands twice, first on line {lines[(*where, key)]}")
            lines[(*where, key)] = at
            result[key] = _construct(loader, value_node, (*where, key), lines, path, above)
        return result
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return [_construct(loader, n, (*where, i), lines, path, above) for i, n in enumerate(node.value)]
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if not isinstance(node, yaml.ScalarNode) or kind not in ("null", "bool", "int", "float", "str"):
        raise UserError(f"{path}:{line}: not valid YAML here (type {kind!r}; plain mappings, lists and scalars are)")
    return loader.construct_object(node)


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
    return f"{read.path}:{read.line(where)}" + (f": {key}" if key else "")


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
