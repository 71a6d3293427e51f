"""What an evaluation has so far, so that one cut off goes on: accuracy.partial.jsonl, gone when accuracy.json is there.

Its first line says what is evaluated and how; a file that says otherwise is started anew.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.accuracy.question import Piece
from bench.files import append_json_lines, replace_file
from bench.reading import read_json_lines


@dataclass(frozen=True)
class Count:
    """What is kept of a piece."""

    subject: str
    items: int
    correct: int
    cut: int


class Partial:
    """The finished pieces of one evaluation, in memory and on disk."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self._path = path
        self.counts: dict[tuple[str, int], Count] = {}
        lines, _ = read_json_lines(path)
        if lines and lines[0] == {"settings": settings}:
            self.counts = {(c["subject"], c.pop("first")): Count(**c) for c in lines[1:]}
        else:
            lines = [{"settings": settings}]
        kept = [lines[0], *map(_line, self.counts, self.counts.values())]  # without a torn line, if there was one
        replace_file(path, "".join(json.dumps(line) + "\n" for line in kept))

    def add(self, piece: Piece, count: Count) -> None:
        """Keeps a finished piece; on disk when this returns."""
        append_json_lines(self._path, [_line(piece.key, count)])
        self.counts[piece.key] = count

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def _line(key: tuple[str, int], count: Count) -> dict[str, Any]:
    return {"subject": key[0], "first": key[1], "items": count.items, "correct": count.correct, "cut": count.cut}
