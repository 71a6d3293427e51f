"""Writing into a results folder: all files of a drawing at once, or none of them."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A place beside the files to write new ones; at the end they replace those of the same name.

    Where writing fails, on a full disk for one, nothing in the folder has changed. Raises OSError.
    """
    with TemporaryDirectory(prefix=".drawing-", dir=folder, ignore_cleanup_errors=True) as name:
        drafts = Path(name)
        yield drafts
        written = sorted(drafts.iterdir())
        for path in written:
            with path.open("rb") as file:
                os.fsync(file.fileno())  # a disk may tell only here that it is full
        for path in written:
            path.replace(folder / path.name)


def write_csv(
    lines: Sequence[Mapping[str, object]], path: Path, integers: Sequence[str], head: Sequence[str] = ()
) -> None:
    """Tidy data, unrounded. An empty cell means not measured; `integers` names columns of numbers that may be missing;
    `head` stands for the columns where there are no lines."""
    import pandas as pd

    frame = pd.DataFrame(list(lines)) if lines else pd.DataFrame(columns=list(head))
    for name in integers:
        if name in frame:
            frame[name] = frame[name].astype("Int64")  # pandas' integers that may be missing
    frame.to_csv(path, index=False, lineterminator="\n")
