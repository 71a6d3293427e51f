"""The folder of a training run: whose it is, whether it can go on, and what gives way to a fresh start."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.errors import UserError, short
from bench.files import EARLIER, LOCK, complete_move, move_was_cut_off, replace_file, set_aside
from bench.folder import hold, usable
from bench.locks import Taken
from bench.reading import ANY_OBJECT, read_object

SETTINGS, RESULT, METRICS, MODEL, CHECKPOINTS = "settings.json", "train.json", "metrics.jsonl", "model", "checkpoints"
BOARD, ACCURACY = "tensorboard", "accuracy.json"


@contextmanager
def claim(folder: Path, settings: dict[str, Any], fresh: bool) -> Iterator[Callable[[], None]]:
    """Keeps the folder to a run with these settings, new or to go on; gives a function that makes it that run's, to be
    called before anything is written there.

    Raises UserError, with nothing changed, where it holds anything else or another process trains into it.
    """
    usable("--out", folder)
    if not move_was_cut_off(folder):
        _begun(folder, settings, fresh)
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(folder))
        except Taken as e:
            raise UserError(f"--out {folder}: another process is training into it ({e.process}).") from None
        complete_move(folder)
        begun = _begun(folder, settings, fresh)  # another process may have trained meanwhile

        def begin() -> None:
            if fresh:
                _aside(folder)
            if fresh or not begun:
                replace_file(folder / SETTINGS, json.dumps(settings, indent=1) + "\n")

        yield begin


def _begun(folder: Path, settings: dict[str, Any], fresh: bool) -> bool:
    """Whether training has begun in the folder; settings alone, of a run that failed before, bind nobody."""
    try:
        names = {p.name for p in folder.iterdir()} - {EARLIER, LOCK, SETTINGS + ".new"}
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
    there = read_object(folder / SETTINGS, ANY_OBJECT, f"--fresh starts anew and keeps it in {EARLIER}/.")
    here = json.loads(json.dumps(settings))
    odd = [key for key in {**here, **there} if here.get(key) != there.get(key)]
    if odd:
        told = ", ".join(f"{key} is {short(there.get(key))} there and {short(here.get(key))} here" for key in odd[:3])
        raise UserError(
            f"--out {folder}: holds another run: {told}. Give another folder, or --fresh: what is there moves to"
            f" {EARLIER}/ then"
        )
    return True


def _aside(folder: Path) -> None:
    old = [path for path in folder.iterdir() if path.name not in (EARLIER, LOCK)]
    if old:  # the settings last: cut off, the folder still says whose it is
        name = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        set_aside(folder, name, sorted(old, key=lambda p: p.name == SETTINGS))
