"""Reads what was drawn, and the samples that it was drawn from."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np

PASSES = ("forward", "backward", "forward-backward")


def tidy(folder: Path, **wanted: str) -> list[dict[str, str]]:
    with (folder / "table1.csv").open() as file:
        return [line for line in csv.DictReader(file) if all(line[k] == v for k, v in wanted.items())]


def pick(folder: Path, **wanted: str) -> dict[str, str]:
    found = tidy(folder, **wanted)
    assert len(found) == 1
    return found[0]


def samples(maker: Any, method: str, pass_: str, clock: str, **axes: object) -> np.ndarray:
    wanted = {"method": method, "pass": pass_, "clock": clock} | axes
    ids = [(r["case_id"], r["pass"], r["clock"]) for r in maker.rows if all(r[k] == v for k, v in wanted.items())]
    found = [s["samples_ms"] for s in maker.samples if (s["case_id"], s["pass"], s["clock"]) in ids]
    assert len(found) == 1
    return np.asarray(found[0])


def row_of(text: str, *starts: str) -> list[str]:
    """The cells of the only table line that begins so."""
    found = [x for x in text.splitlines() if x.startswith("| " + " | ".join(starts) + " |")]
    assert len(found) == 1, found
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", found[0])[1:-1]]


def section(text: str, head: str) -> str:
    """From the one heading that begins so to the next of its level or above."""
    level = re.match("#+", head).group()  # type: ignore[union-attr]
    start = re.search(rf"^{re.escape(head)}.*$", text, re.M)
    assert start is not None
    end = re.search(rf"^#{{1,{len(level)}}} ", text[start.end() :], re.M)
    return text[start.start() : start.end() + end.start()] if end else text[start.start() :]
