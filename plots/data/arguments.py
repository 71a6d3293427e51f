"""What was given on the command line, by what each folder is. A shell's glob gives files of ours among them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.errors import UserError, listed
from bench.reading import is_there
from bench.record.predictions import holds_predictions
from plots.data.load import HELD_FILES
from plots.data.training_runs import is_run

MOST_NAMED = 4  # paths in a note
UNFINISHED = "settings.json"  # bench train writes it first, and train.json last


@dataclass
class Given:
    """Folders of bench predict, of sweeps and of trainings, in the order given, and what was passed over."""

    predicted: list[Path] = field(default_factory=list)
    measured: list[Path] = field(default_factory=list)
    runs: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def sort_out(paths: Sequence[Path]) -> Given:
    """Raises UserError for a path that is not there, and where nothing is left that could be drawn."""
    given = Given()
    files, unfinished, others = [], [], []
    for path in paths:
        if not is_there(path.exists):
            raise UserError(f"{path}: no such folder. A results folder holds one of {', '.join(HELD_FILES)}.")
        if not path.is_dir():
            files.append(path)
        elif holds_predictions(path):
            given.predicted.append(path)
        elif is_run(path):
            given.runs.append(path)
        elif any((path / name).exists() for name in HELD_FILES):
            given.measured.append(path)
        elif (path / UNFINISHED).exists():
            unfinished.append(path)
        elif inside := list(_runs_in(path)):
            given.runs += inside
            given.notes.append(f"{path}: took the {len(inside)} training runs in it")
        else:
            others.append(path)
    lacking = f"none of {', '.join(HELD_FILES)} is in"
    for left, why in (
        (files, "no folder" if len(files) == 1 else "no folders"),
        (unfinished, "training is not finished"),
        (others, f"no results folder: {lacking} {'it' if len(others) == 1 else 'them'}"),
    ):
        if left:
            given.notes.append(f"{_named(left)}: {why}; left out")
    if not (given.predicted or given.measured or given.runs):
        raise UserError("; ".join(note.removesuffix("; left out") for note in given.notes))
    return given


def _runs_in(path: Path) -> Iterator[Path]:
    return (inner for inner in sorted(path.iterdir()) if inner.is_dir() and is_run(inner))


def _named(paths: Sequence[Path]) -> str:
    more = len(paths) - MOST_NAMED
    return listed([*map(str, paths[:MOST_NAMED]), *([f"{more} more"] if more > 0 else [])])
