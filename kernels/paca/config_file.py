"""paca_config.json: what paca() was asked for and what was saved, read with every field checked."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .beside import Shapes
from .model import PacaConfig

FORMAT, READ = 2, (1, 2)
LARGEST = 2**26  # bytes; a model of a thousand layers takes a hundred thousand
_SIZE = 2**40  # no tensor has such a dimension


@dataclass(frozen=True)
class Others:
    """What a checkpoint says of all that is no column."""

    parameters: Shapes
    frozen: frozenset[str]
    statistics: Shapes
    embedding_rows: int | None


def read_described(path: Path) -> Any:
    """The value of the file. Raises ValueError for one that is no JSON or too long."""
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} has {path.stat().st_size} bytes, expected at most {LARGEST}")
    return parse(path.read_bytes(), path)


def parse(text: str | bytes, path: Path) -> Any:
    """The value of a JSON text. Raises ValueError, naming `path`."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from None


def understood(path: Path, described: Any) -> tuple[PacaConfig, dict[str, tuple[int, int]], Others]:
    """What paca() was asked for, (in_features, out_features) by layer, and the rest. Raises ValueError, naming the file
    and the field."""
    found = described.get("format") if isinstance(described, dict) else None
    if type(found) is not int or found not in READ:
        raise ValueError(f"{path}: format is {_short(found)}, expected {' or '.join(map(str, READ))}")
    if found == 1:
        nothing: dict[str, Any] = {"modules_to_save": [], "parameters": {}, "frozen": [], "statistics": {}}
        described = {**nothing, "embedding_rows": None, **described}
    for key, (holds, expected) in _FIELDS.items():
        if key not in described and key not in _MAY_LACK:
            raise ValueError(f"{path}: the key {key!r} is missing")
        if not holds(described.get(key)):
            raise ValueError(f"{path}: {key} is {_short(described.get(key))}, expected {expected}")
    targets, layers = described["targets"], described["layers"]
    named = (*described["shapes"], *described["parameters"], *described["statistics"])
    if odd := [name for name in named if not name.isprintable()]:
        raise ValueError(f"{path}: {_short(odd[0])} is no name of a layer or parameter")
    if odd := [name for name in described["shapes"] if f"{name}.weight" in described["parameters"]]:
        raise ValueError(f"{path}: parameters names {odd[0]}.weight, of which columns alone are saved")
    config = PacaConfig(
        rank=described["rank"],
        alpha=described["alpha"],
        targets=targets if isinstance(targets, str) else tuple(targets),
        layers=None if layers is None else tuple(layers),
        seed=described["seed"],
        adapter_dtype=getattr(torch, described["adapter_dtype"]),
        modules_to_save=tuple(described["modules_to_save"]),
    )
    beside = [{name: tuple(shape) for name, shape in described[key].items()} for key in ("parameters", "statistics")]
    frozen = frozenset(described["frozen"])
    if unknown := sorted(frozen - beside[0].keys()):
        raise ValueError(f"{path}: frozen names {_short(unknown[0])}, which is none of the parameters")
    others = Others(beside[0], frozen, beside[1], described["embedding_rows"])
    return config, {name: (shape["in"], shape["out"]) for name, shape in described["shapes"].items()}, others


def plain(text: str) -> str:
    """The text as one line without control characters, for a sentence: names in a file may hold any."""
    return text if text.isprintable() else repr(text)[1:-1]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_int(value: object, least: int = 0, most: int = _SIZE) -> bool:
    return type(value) is int and least <= value <= most


def _is_list(value: object, holds: Callable[[Any], bool]) -> bool:
    return isinstance(value, list) and all(map(holds, value))


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_dtype(value: object) -> bool:
    return isinstance(value, str) and isinstance(getattr(torch, value, None), torch.dtype)


def _is_table(value: object) -> bool:
    return isinstance(value, dict) and all(_is_list(shape, _is_int) for shape in value.values())


def _are_shapes(value: object) -> bool:
    sides = list(value.values()) if isinstance(value, dict) and value else [None]
    return all(isinstance(s, dict) and _is_int(s.get("in"), 1) and _is_int(s.get("out"), 1) for s in sides)


def _is_scale(value: object) -> bool:
    return type(value) in (int, float) and 0 < value <= sys.float_info.max  # type: ignore[operator]


def _or_null(holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or holds(value)


_MAY_LACK = ("architecture", "num_labels", "base_model")  # files that were written before the key was
_TEXTS: tuple[Callable[[Any], bool], str] = (lambda value: _is_list(value, _is_text), "a list of names")
_TABLE = (_is_table, "an object of lists of sizes")
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "rank": (lambda value: _is_int(value, 1), "a whole number of at least 1"),
    "alpha": (_is_scale, "a positive number"),
    "targets": (lambda value: _is_text(value) or _is_list(value, _is_text), "a name or a list of names"),
    "layers": (_or_null(lambda value: _is_list(value, _is_int)), "null or a list of numbers of blocks"),
    "seed": (lambda value: type(value) is int, "a whole number"),
    "adapter_dtype": (_is_dtype, "the name of a dtype of torch, as float32 is one"),
    "modules_to_save": _TEXTS,
    "frozen": _TEXTS,
    "parameters": _TABLE,
    "statistics": _TABLE,
    "shapes": (_are_shapes, "an object of one layer or more, each with the numbers in and out"),
    "embedding_rows": (_or_null(_is_int), "null or int"),
    "architecture": (_or_null(_is_text), "null or str"),
    "num_labels": (_or_null(lambda value: _is_int(value, 0, 2**20)), "null or a number of labels, at most 1048576"),
    "base_model": (_or_null(_is_text), "null or str"),
}
