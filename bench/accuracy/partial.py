"""What an evaluation has so far, so that one cut off goes on: accuracy.partial.jsonl, gone when accuracy.json is there.

Its first line says what is evaluated and how; a file that says otherwise is started anew.
"""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bench import reading
from bench.accuracy.question import Piece
from bench.errors import UserError, short
from bench.files import append_json_lines, replace_file
from bench.reading import Object, Text, read_json_lines, shape_of


@dataclass(frozen=True)
class Count:
    """What is kept of a piece."""

    subject: str
    items: int
    correct: int
    cut: int


def _check(line: Object) -> Object:
    """Of the first line, and of the others."""
    if "settings" not in line:
        lacking = [name for name in _FIELDS if line.get(name) is None]
        if lacking:
            raise ValueError(f"it has no {lacking[0]}")
        if max(line["correct"], line["cut"]) > line["items"]:
            raise ValueError("correct or cut is above items")
    return line


_FIELDS = {"subject": Text, **dict.fromkeys(("first", "items", "correct", "cut"), reading.Count)}
_LINE = shape_of({**_FIELDS, "settings": dict[str, Any]}, (), _check)


class Partial:
    """The finished pieces of one evaluation, in memory and on disk."""

    def __init__(self, path: Path, settings: dict[str, Any], pieces: list[Piece]) -> None:
        """Raises UserError where a line of the file cannot be an outcome of these pieces."""
        self._path = path
        self.counts: dict[tuple[str, int], Count] = {}
        lines, _ = read_json_lines(path, _LINE)
        if lines and lines[0] == {"settings": settings}:
            sizes = {piece.key: len(piece.items) for piece in pieces}
            for told in lines[1:]:
                key = told.get("subject"), told.get("first")
                if key not in sizes or sizes[key] != told["items"]:
                    raise UserError(
                        f"{path}: a line on {short(key)} is of no piece of this evaluation. Remove the file."
                    )
                self.counts[key] = Count(*(told[f.name] for f in fields(Count)))
        kept = [{"settings": settings}, *map(_line, self.counts, self.counts.values())]  # without a torn line
        replace_file(path, "".join(json.dumps(line) + "\n" for line in kept))

    def add(self, piece: Piece, count: Count) -> None:
        """Keeps a finished piece; on disk when this returns."""
        append_json_lines(self._path, [_line(piece.key, count)])
        self.counts[piece.key] = count

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def _line(key: tuple[str, int], count: Count) -> dict[str, Any]:
    return {"subject": key[0], "first": key[1], "items": count.items, "correct": count.correct, "cut": count.cut}
