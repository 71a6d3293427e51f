"""`python -m plots DIR [DIR ...]`: tables, figures and a report from the files of results folders."""

from bench.process import begin, terminate_as_interrupt

if __name__ == "__main__":
    begin()  # before anything else is imported

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bench.errors import EMPTY, UserError, one_line, printable, short
from plots.data.training_runs import EXAMPLES, Run, load_runs

if TYPE_CHECKING:
    from plots.boards.sorting import Kin
    from plots.data.predictions import Predictions

MOST_EXAMPLES = 10**12
MOST_PRICE = 10**6


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        super().error(one_line(message))


def _path(text: str) -> Path:
    if not text.strip():
        raise argparse.ArgumentTypeError(EMPTY)
    return Path(text)


def _price(text: str | None) -> float | None:
    try:
        found = None if text is None else float(text)
    except ValueError:
        found = 0.0
    if found is not None and not 0 < found <= MOST_PRICE:
        raise UserError(
            f"--price {short(text)}: the price of an hour is a number above 0 and at most {MOST_PRICE:,}, without a "
            "currency, such as 1.80."
        )
    return found


def _say(text: str) -> None:
    print(one_line(text), file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when every folder was drawn; 2 when one of them is no folder of ours, and then nothing was written."""
    parser = _Parser(
        prog="python -m plots",
        description="Draws tables, report.md, report.html and figures from the rows of a results folder, into that "
        "folder. The tables of sweep table1 are table1.md and table1.csv, those of others tables.md and summary.csv. "
        "Half-finished folders are drawn as far as they go.",
    )
    parser.add_argument(
        "folders",
        metavar="DIR",
        nargs="+",
        type=_path,
        help="a results folder, such as results/cpu/table1; a folder of bench predict; or a folder "
        "of bench train or bench evaluate, which fills Table 2 of the results folders beside it. Runs alone, or a "
        "folder that holds them, make a page of their own. Results folders of one sweep on several GPUs make one over "
        "all of them: the ratio to Full-FT by GPU",
    )
    parser.add_argument(
        "--out",
        type=_path,
        help="where the page of runs alone goes, without a results folder (default: beside the first), or the one over "
        "several boards (default: boards/ in the folder that all have in common)",
    )
    parser.add_argument(
        "--examples", type=int, default=EXAMPLES, help="in an epoch that Table 2 projects; default: %(default)s, MMLU's"
    )
    parser.add_argument(
        "--price", metavar="NUMBER", help="of an hour on the device, in any currency: adds the cost of a million tokens"
    )
    parser.add_argument(
        "--into",
        metavar="PAGE",
        type=_path,
        help="of one folder of bench predict: put its tables into this page, between the comments that begin and end "
        "the predicted table 1",
    )
    asked = parser.parse_args(arguments)
    from plots.boards.sorting import find_kin
    from plots.data.arguments import sort_out
    from plots.data.load import load
    from plots.data.predictions import load_predictions

    try:
        if not 1 <= asked.examples <= MOST_EXAMPLES:
            raise UserError(f"--examples {short(asked.examples)}: an epoch has from 1 to {MOST_EXAMPLES:,} examples.")
        price = _price(asked.price)
        given = sort_out(asked.folders)
        predicted = [load_predictions(path) for path in given.predicted]
        if asked.into and (len(predicted), len(asked.folders)) != (1, 1):
            raise UserError(f"--into {asked.into}: this goes with one folder of bench predict, and no other.")
        runs = load_runs(given.runs)
        folders = [load(path) for path in given.measured]
        kin, notes = find_kin(folders)
        if asked.out and folders and not kin:
            raise UserError(
                f"--out {asked.out}: this is for runs alone, and for the page over several boards. {folders[0].path} "
                "is a results folder, and is drawn into."
            )
    except (UserError, OSError) as error:
        _say(f"python -m plots: {error}")
        return 2
    for note in (*given.notes, *notes):
        _say(f"note: {note}")
    if status := _predictions(predicted, asked.into):
        return status
    if runs and not folders:
        return _runs_alone(asked.out or runs[0].path.resolve().parent, runs, asked.examples)
    if not folders:
        return 0
    from plots.report import draw

    for folder in folders:
        for note in folder.notes:
            _say(f"note: {note}")
        try:
            with terminate_as_interrupt():
                written, said = draw(folder, runs, asked.examples, price=price)
        except (OSError, UserError) as error:
            told = error if isinstance(error, UserError) else f"cannot write into {folder.path}: {error}"
            _say(f"python -m plots: {told}")
            return 2
        print(one_line(f"{folder.path}: {', '.join(path.name for path in written)}"))
        print(printable(said))
    for one in kin:
        where = asked.out or one.place
        if status := _boards(where if len(kin) == 1 else where / one.stem, one):
            return status
    return 0


def _boards(where: Path, kin: "Kin") -> int:
    from plots.boards.report import draw_boards

    try:
        with terminate_as_interrupt():
            written, said = draw_boards(where, kin)
    except (OSError, UserError) as error:
        told = error if isinstance(error, UserError) else f"cannot write into {where}: {error}. --out names another"
        _say(f"python -m plots: {told}")
        return 2
    if written:
        print(one_line(f"{where}: {', '.join(path.name for path in written)}"))
    print(printable(said))
    return 0


def _predictions(found: "Sequence[Predictions]", into: Path | None) -> int:
    from plots.predicted import draw_predictions, write_into

    for one in found:
        try:
            with terminate_as_interrupt():
                written = draw_predictions(one)
                if into:
                    write_into(into, one)
        except (OSError, UserError) as error:
            told = error if isinstance(error, UserError) else f"cannot write into {one.path}: {error}"
            _say(f"python -m plots: {told}")
            return 2
        print(one_line(f"{one.path}: {', '.join(path.name for path in written)}; predicted, not measured"))
    return 0


def _runs_alone(where: Path, runs: Sequence[Run], examples: int) -> int:
    from plots.runs.report import draw_runs

    try:
        with terminate_as_interrupt():
            written, said = draw_runs(where, runs, examples)
    except (OSError, UserError) as error:
        told = error if isinstance(error, UserError) else f"cannot write into {where}: {error}"
        _say(f"python -m plots: {told}")
        return 2
    print(one_line(f"{where}: {', '.join(path.name for path in written)}"))
    print(printable(said))
    return 0


if __name__ == "__main__":
    sys.exit(main())
