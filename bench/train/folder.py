"""The folder of a training run: whose it is, whether it can go on, and what gives way to a fresh start."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bench.errors import UserError
from bench.files import EARLIER, replace_file, set_aside

SETTINGS, RESULT, METRICS, MODEL, CHECKPOINTS = "settings.json", "train.json", "metrics.jsonl", "model", "checkpoints"
_LOCK = ".lock"


def claim(folder: Path, settings: dict[str, Any], fresh: bool) -> FileLock:
    """Makes the folder that of a run with these settings, new or to go on; returns the lock, which is held.

    Raises UserError, with nothing changed, where it holds anything else or another process trains into it.
    """
    begun = _begun(folder, settings, fresh)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK, mode=0o666)
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(f"--out {folder}: another process is training into it.") from None
    except OSError as e:
        raise UserError(f"--out {folder}: {e.strerror}") from None
    if fresh:
        _aside(folder)
    if fresh or not begun:
        replace_file(folder / SETTINGS, json.dumps(settings, indent=1) + "\n")
    return lock


def _begun(folder: Path, settings: dict[str, Any], fresh: bool) -> bool:
    """Whether training has begun in the folder; settings alone, of a run that failed before, bind nobody."""
    try:
        names = {p.name for p in folder.iterdir()} - {EARLIER, _LOCK, SETTINGS + ".new"}
    except FileNotFoundError:
        return False
    except OSError as e:
        raise UserError(f"--out {folder}: {e.strerror}") from None
    if names <= {SETTINGS}:
        return False
    if SETTINGS not in names:
        raise UserError(f"--out {folder}: holds {min(names)} and no training run; give another folder")
    if fresh:
        return True
    there: Any = None
    with suppress(OSError, ValueError):
        there = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    if not isinstance(there, dict):
        raise UserError(f"{folder / SETTINGS}: cannot be read; --fresh starts anew and keeps it in {EARLIER}/")
    here = json.loads(json.dumps(settings))
    odd = [key for key in {**here, **there} if here.get(key) != there.get(key)]
    if odd:
        told = ", ".join(f"{key} is {there.get(key)!r} there and {here.get(key)!r} here" for key in odd[:3])
        raise UserError(
            f"--out {folder}: holds another run: {told}. Give another folder, or --fresh: what is there moves to"
            f" {EARLIER}/ then"
        )
    return True


def _aside(folder: Path) -> None:
    old = [path for path in folder.iterdir() if path.name not in (EARLIER, _LOCK)]
    if old:  # the settings last: cut off, the folder still says whose it is
        name = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        set_aside(folder, name, sorted(old, key=lambda p: p.name == SETTINGS))
