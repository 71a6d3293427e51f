"""Reads what was drawn, and the samples that it was drawn from."""

import csv
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np

from plots.data.load import load
from plots.report import draw

PASSES = ("forward", "backward", "forward-backward")


def draw_tables(maker: Any) -> str:
    """Writes the folder and draws it without figures, which are slow; returns the answer."""
    return draw(load(maker.write()), figures=())[1]


def lines_of(path: Path, **wanted: str) -> list[dict[str, str]]:
    """The lines of a CSV file that have these values."""
    with path.open() as file:
        return [line for line in csv.DictReader(file) if all(line[k] == v for k, v in wanted.items())]


def pick(path: Path, **wanted: str) -> dict[str, str]:
    """The only such line."""
    found = lines_of(path, **wanted)
    assert len(found) == 1, (wanted, len(found))
    return found[0]


def samples(maker: Any, pass_: str, clock: str = "eager", **axes: object) -> np.ndarray:
    """What was sampled of the only case with these axes."""
    wanted = {"pass": pass_, "clock": clock} | axes
    keys = {(r["case_id"], pass_, clock) for r in maker.rows if all(r[k] == v for k, v in wanted.items())}
    found = [s["samples_ms"] for s in maker.samples if (s["case_id"], s["pass"], s["clock"]) in keys]
    assert len(found) == 1
    return np.asarray(found[0])


def value(cell: str) -> float:
    """The number of a cell, without its interval and marks."""
    return float(cell.split()[0])


def cells_of(text: str, *starts: str) -> dict[str, str]:
    """The cells of the only table line that begins so, by the heads of its table."""
    lines = text.splitlines()
    found = [i for i, x in enumerate(lines) if x.startswith("| " + " | ".join(starts) + " |")]
    assert len(found) == 1, [lines[i] for i in found]
    head = next(lines[i - 1] for i in range(found[0], 0, -1) if lines[i].startswith("| ---"))
    return dict(zip(_cells(head), _cells(lines[found[0]]), strict=True))


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def section(text: str, head: str) -> str:
    """From the one heading that begins so to the next of its level or above."""
    level = re.match("#+", head).group()  # type: ignore[union-attr]
    start = re.search(rf"^{re.escape(head)}.*$", text, re.M)
    assert start is not None
    end = re.search(rf"^#{{1,{len(level)}}} ", text[start.end() :], re.M)
    return text[start.start() : start.end() + end.start()] if end else text[start.start() :]


def words_of(svg: Path) -> list[str]:
    """The texts of a figure, a line each, in the order in which they are drawn."""
    root = ElementTree.parse(svg).getroot()
    return [" ".join("".join(found.itertext()).split()) for found in root.iter("{http://www.w3.org/2000/svg}text")]
