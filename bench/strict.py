"""YAML files checked against a pydantic model: an unknown key, a wrong type or value is told by file, line and key."""

from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from bench.errors import UserError, short
from bench.yamlfile import Where, YamlFile, load_yaml


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
        return f"{place(read, where)}: unknown key; valid here: {', '.join(_valid_keys(model, where))}"
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
