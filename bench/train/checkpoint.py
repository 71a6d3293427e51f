"""Which checkpoints of a run can be trusted: one counts once its list of files is there and every file is whole."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import StrictStr

from bench.errors import UserError, short
from bench.files import replace_file
from bench.reading import Count, Number, number, read_object, shape_of

_MARK = "complete.json"
ADVICE = "Remove this checkpoint, and training goes on from the one before it or anew."


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
    found = [c for path in _folders(folder) if (c := _read(path)) is not None]
    return max(found, key=lambda c: c.step, default=None)


def drop_torn(folder: Path) -> list[str]:
    """Removes what a kill left half written, and returns the names."""
    torn = [path for path in _folders(folder) if _read(path) is None]
    for path in torn:
        shutil.rmtree(path)
    return sorted(path.name for path in torn)


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.glob("checkpoint-*") if path.is_dir() and not path.is_symlink()]


_SHAPE = shape_of(
    {"step": Count, "elapsed_s": number(0, 1e12), "files": dict[StrictStr, Count]}, ("step", "elapsed_s", "files")
)
# What Trainer computes with of its own state; it replaces the rest when it starts.
_COMPUTED = {
    "global_step": Count, "epoch": number(0, 2**53), "logging_steps": Literal[1], "save_steps": Count,
    "total_flos": Number, "num_input_tokens_seen": Count, "log_history": list[dict[StrictStr, Any]],
}  # fmt: skip
_STATE = shape_of({**_COMPUTED, "best_model_checkpoint": Literal[False]}, _COMPUTED)


def _read(path: Path) -> Checkpoint | None:
    try:
        told = read_object(path / _MARK, _SHAPE)
    except UserError:
        return None
    sizes = {f.name: f.stat().st_size for f in path.iterdir() if f.is_file()}
    whole = all(sizes.get(name) == size for name, size in told["files"].items())
    return Checkpoint(path, told["step"], told["elapsed_s"]) if whole and path.name == _name(told["step"]) else None


def _name(step: int) -> str:
    return f"checkpoint-{step}"


def check_state(checkpoint: Checkpoint) -> None:
    """Raises UserError where Trainer would go on at another step than the one that the checkpoint is of."""
    state = checkpoint.path / "trainer_state.json"
    found = read_object(state, _STATE, ADVICE)["global_step"]
    if found != checkpoint.step:
        raise UserError(f"{state}: global_step is {found}. It should be {checkpoint.step}. {ADVICE}")
    from transformers import TrainerState

    try:
        TrainerState.load_from_json(str(state))
    except Exception as e:  # fields of another version of transformers
        raise UserError(f"{state}: cannot be loaded ({type(e).__name__}: {short(str(e), 200)}). {ADVICE}") from None
