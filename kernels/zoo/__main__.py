"""python -m kernels.zoo: tries accelerate() and paca() on a tiny model of every architecture that transformers has.

Prints what it found as a table. Exit status 0 where every architecture is served or refused with a reason, 1 where one
is at fault (results that differ, or a crash), 2 on bad arguments. Ctrl-C leaves what was done so far.
"""

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path

from ..runtime.files import write_atomically
from . import processes, table
from .row import WRONG, Row


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m kernels.zoo", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--model", nargs="+", action="extend", metavar="NAME",
        help="only these, by transformers' model_type (llama, gpt2), or package.module:Class of your own",
    )  # fmt: skip
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows there, after each architecture")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there as Markdown")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="processes at a time (default: 2)")
    options = parser.parse_args(argv)
    if options.jobs < 1:
        parser.error(f"--jobs is {options.jobs}, expected at least 1")
    for flag in ("json", "markdown"):
        path = getattr(options, flag)
        if path is not None and not path.resolve().parent.is_dir():
            parser.error(f"--{flag} {path}: there is no folder {path.resolve().parent}")
    for library in ("transformers", "peft"):
        if find_spec(library) is None:
            parser.error(f"{library} is not installed, which the models come from: pip install {library}")
    try:
        for name in options.model or ():
            if wrong := processes.unknown(name):
                parser.error(wrong)
        names = list(dict.fromkeys(options.model or processes.whole_run()))
    except ImportError as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        return 130
    return run(names, options)


def run(names: list[str], options: argparse.Namespace) -> int:
    """Examines them, writes what was asked for, prints the table; returns the exit status."""
    found: dict[str, Row] = {}

    def rows() -> list[Row]:
        return [found[name] for name in names if name in found]

    def done(row: Row) -> None:
        found[row.arch] = row
        _, accelerate, paca, why = table.cells(row)
        said = f"{accelerate} | {paca} | {why}"
        print(f"{len(found)}/{len(names)} {row.arch}: {said[:150]}", file=sys.stderr, flush=True)
        if options.json:
            text = json.dumps([row.as_json() for row in rows()], indent=1) + "\n"
            write_atomically(options.json, lambda path: path.write_text(text, encoding="utf-8"))

    interrupted = False
    try:
        processes.examine_all(names, options.jobs, done)
    except KeyboardInterrupt:
        interrupted = True
        print(f"stopped after {len(found)} of {len(names)} architectures", file=sys.stderr)
    if options.markdown and found and not interrupted:
        text = table.markdown(rows())
        write_atomically(options.markdown, lambda path: path.write_text(text, encoding="utf-8"))
    print(table.terminal(rows()))
    print(table.totals(rows()))
    if interrupted:
        return 130
    return 1 if any(row.status == WRONG for row in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
