"""What a model is called where people read: short, though its path or its id on the Hub says where it comes from."""

from collections.abc import Iterable
from pathlib import PurePath

LONGEST = 60  # characters of a name that a folder gets


# Of models that would be called alike: what this process calls them, by what the axis model holds.
_APART: dict[str, str] = {}


def short_name(model: str) -> str:
    """The last part that says something: 'Qwen3-8B' of Qwen/Qwen3-8B, 'mine' of checkpoints/mine/config.json, 'tiny'
    of tiny.json; with as many parts in front as `tell_apart` found to be needed."""
    return _APART.get(model) or _parts(model)[-1]


def tell_apart(models: Iterable[str | None]) -> None:
    """From now on `short_name` differs for each of these models, which stand in one sweep or one folder."""
    parts = {m: _parts(m) for m in models if m}
    for model, own in parts.items():
        others = [p for m, p in parts.items() if m != model]
        if any(p[-1] == own[-1] for p in others):
            apart = (n for n in range(2, len(own) + 1) if all(p[-n:] != own[-n:] for p in others))
            _APART[model] = "/".join(own[-next(apart, 0) :]) if len(own) > 1 else model


def plain_name(name: str) -> str:
    """A short name as a folder may have it."""
    found = "".join(c if c.isalnum() or c in "-_." else "-" for c in name if c.isprintable())
    return found[:LONGEST].strip(".") or "model"


def _parts(model: str) -> list[str]:
    parts = [p for p in PurePath(model).parts if p not in ("/", "..", ".")]
    if parts and parts[-1] == "config.json" and len(parts) > 1:
        parts = parts[:-1]
    elif parts and parts[-1].endswith(".json"):
        parts = [*parts[:-1], parts[-1].removesuffix(".json")]
    return parts or [model]
