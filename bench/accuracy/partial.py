"""What an evaluation has so far, so that one cut off goes on: accuracy.partial.jsonl, gone when accuracy.json is there.

Its first line says what is evaluated and how; a file that says otherwise is started anew.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.accuracy.question import Piece


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
        lines = _whole_lines(path)
        if lines and lines[0] == {"settings": settings}:
            self.counts = {(c["subject"], c.pop("first")): Count(**c) for c in lines[1:]}
        else:
            lines = [{"settings": settings}]
        with open(path, "w", encoding="utf-8") as f:  # without a torn line, if there was one
            f.writelines(json.dumps(line) + "\n" for line in [lines[0], *map(_line, self.counts, self.counts.values())])

    def add(self, piece: Piece, count: Count) -> None:
        """Keeps a finished piece; on disk when this returns."""
        with open(self._path, "a", encoding="utf-8") as f:
            f.write(json.dumps(_line(piece.key, count)) + "\n")
            f.flush()
            os.fsync(f.fileno())
        self.counts[piece.key] = count

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def _line(key: tuple[str, int], count: Count) -> dict[str, Any]:
    return {"subject": key[0], "first": key[1], "items": count.items, "correct": count.correct, "cut": count.cut}


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """The lines up to the first that a kill tore, or that is none of ours."""
    found: list[dict[str, Any]] = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                value = json.loads(line)
            except ValueError:
                break
            if not isinstance(value, dict):
                break
            found.append(value)
    return found
