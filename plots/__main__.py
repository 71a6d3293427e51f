"""`python -m plots DIR [DIR ...]`: tables, figures and a report from the files of results folders."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every folder was drawn; 2 when one of them is no results folder, and then nothing was written."""
    parser = argparse.ArgumentParser(
        prog="python -m plots",
        description="Draws table1.md, table1.csv, report.md, report.html and figures from the rows of a results "
        "folder, into that folder. Half-finished folders are drawn as far as they go.",
    )
    parser.add_argument(
        "folders", metavar="DIR", nargs="+", type=Path, help="a results folder, such as results/cpu/table1"
    )
    asked = parser.parse_args(arguments)
    from plots.load import FolderError, load

    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that lacks a sign is no reason to stop
    try:
        folders = [load(path) for path in asked.folders]
    except (FolderError, OSError) as error:
        print(f"python -m plots: {error}", file=sys.stderr)
        return 2
    from plots.report import draw

    for folder in folders:
        for note in folder.notes:
            print(f"note: {note}", file=sys.stderr)
        try:
            written, said = draw(folder)
        except OSError as error:
            print(f"python -m plots: cannot write into {folder.path}: {error}", file=sys.stderr)
            return 2
        print(f"{folder.path}: {', '.join(path.name for path in written)}")
        print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main())
