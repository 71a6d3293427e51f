"""python -m bench merge: shards, machines and repeated runs into one results folder."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.cluster.layout import CLUSTER, SHARDS
from bench.cluster.owner import Attended, attend
from bench.errors import UserError, shell_line
from bench.folder import hold, usable
from bench.reading import is_there
from bench.record.merge import GOES_ON, Merged, prepare
from bench.terminal import print_path, say


def merge(folders: Sequence[Path], out: Path | None, allow: str | None) -> int:
    """Merges results folders, prints the path of each record on standard output, and returns the exit status.

    A folder that was submitted to several jobs stands for all of them; alone, it gets their rows itself. Raises
    UserError before anything is written.
    """
    groups = [_attempts(folder) for folder in folders]
    words = frozenset(filter(None, (word.strip() for word in (allow or "").split(","))))
    if len(groups) == 1 and groups[0] != folders:
        out, words = out or folders[0], words | GOES_ON
    merging = prepare(groups, out, words)
    try:
        with ExitStack() as held:
            for path in merging.outs:
                usable("--out", path)
                if is_there((path / CLUSTER).is_file):
                    _refuse_others(path, groups)
                    held.enter_context(attend(path))
                else:
                    held.enter_context(hold(path, lambda process: say(_waits(process))))
            merged = merging.write()
    except Attended as e:
        raise UserError(f"{path}: {e.who} attends to this folder, and merges at the end. Pass another --out.") from None
    except OSError as e:
        raise UserError(f"{e.filename or out}: {e.strerror}; nothing was merged") from None
    for line in _closing(merged):
        say(line)
    for path in merged.folders:
        print_path(path)
    return 0


def _attempts(folder: Path) -> list[Path]:
    """The folders that one stands for."""
    if not is_there((folder / CLUSTER).is_file):
        return [folder]
    found = sorted(p for p in (folder / SHARDS).glob("*") if p.is_dir())
    if not found:
        raise UserError(f"{folder}: nothing was measured there yet: no folder in {folder / SHARDS}.")
    return found


def _refuse_others(out: Path, groups: Sequence[Sequence[Path]]) -> None:
    """A folder that jobs were submitted from gets the rows of their shards alone: a later `run` into it has no others,
    and would go on with a record that holds more."""
    own = {out.resolve(), (out / SHARDS).resolve()}
    for folder in (folder for group in groups for folder in group):
        if own.isdisjoint({folder.resolve(), folder.resolve().parent}):
            raise UserError(f"{out}: jobs were submitted from it, and {folder} is none of theirs. Pass another --out.")


def _waits(process: str) -> str:
    return f"process {process} is writing there; waiting until it is done"


def _closing(merged: Merged) -> Iterator[str]:
    yield from merged.notes
    several = f", {merged.repeats} repeats of a case at most" if merged.repeats > 1 else ""
    yield f"{merged.rows} rows{several}"
    yield f"Tables, plots and the answer: {shell_line(['python', '-m', 'plots', *map(str, merged.folders)])}"
