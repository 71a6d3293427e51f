"""What was measured of this machine once, kept in the cache for the next time. No torch."""

import hashlib
import json
import platform
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from bench.errors import UserError
from bench.files import cache_folder, replace_file
from bench.reading import read_json
from bench.record.environment import version

Kept = TypeVar("Kept")


def place(what: str, machine: str) -> Path | None:
    """The file of `what` of a machine under this torch and this Python; None where nothing can be kept."""
    folder = cache_folder(what)
    key = json.dumps([machine, version("torch"), platform.python_version()])
    return None if folder is None else folder / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"


def recall(what: str, machine: str, shape: TypeAdapter[Kept]) -> Kept | None:
    """What `keep` has kept; None where that is nothing, or no such thing."""
    path = place(what, machine)
    try:
        return None if path is None else shape.validate_python(read_json(path))
    except (UserError, ValidationError):
        return None


def keep(what: str, machine: str, value: Any) -> None:
    """Keeps a dataclass of plain values."""
    if (path := place(what, machine)) is not None:
        with suppress(OSError):  # a full disk: it is measured again next time
            replace_file(path, json.dumps(asdict(value)) + "\n")
