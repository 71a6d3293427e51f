"""Which checkpoints of a run can be trusted: one counts once its list of files is there and every file is whole."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from bench.files import replace_file

_MARK = "complete.json"


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: after which optimizer step it was taken, and after how many seconds of training."""

    path: Path
    step: int
    elapsed_s: float


def complete(path: Path, step: int, elapsed_s: float) -> None:
    """Declares the checkpoint complete: to be called when all processes have written their files."""
    files = {f.name: f.stat().st_size for f in path.iterdir() if f.is_file()}
    replace_file(path / _MARK, json.dumps({"step": step, "elapsed_s": elapsed_s, "files": files}) + "\n")


def newest(folder: Path) -> Checkpoint | None:
    """The complete checkpoint of the highest step; torn ones are skipped."""
    found = [c for path in folder.glob("checkpoint-*") if (c := _read(path)) is not None]
    return max(found, key=lambda c: c.step, default=None)


def drop_torn(folder: Path) -> list[str]:
    """Removes what a kill left half written, and returns the names."""
    torn = [path for path in folder.glob("checkpoint-*") if _read(path) is None]
    for path in torn:
        shutil.rmtree(path)
    return sorted(path.name for path in torn)


def _read(path: Path) -> Checkpoint | None:
    try:
        told = json.loads((path / _MARK).read_text(encoding="utf-8"))
        if all((path / name).stat().st_size == size for name, size in told["files"].items()):
            return Checkpoint(path, int(told["step"]), float(told["elapsed_s"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None
