"""What is asked and what comes back: the data of an evaluation in pieces, and an item's outcome."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from bench.accuracy.categories import category_of
from bench.errors import UserError, did_you_mean
from bench.train.data import Item, read_items


@dataclass(frozen=True)
class Piece:
    """Some items of one subject, and the solved examples that precede each of them."""

    subject: str
    first: int  # of its items, counted within the subject
    items: tuple[Item, ...]
    examples: tuple[Item, ...]

    @property
    def key(self) -> tuple[str, int]:
        return self.subject, self.first


@dataclass(frozen=True)
class Outcome:
    """How a model took one item."""

    log_likelihoods: tuple[float, ...]  # of the four answers' letters, in nats
    right: bool
    cut: bool  # the prompt is longer than the model's window; its beginning was left out


Scorer = Callable[[Piece], list[Outcome]]
MakeScorer = Callable[[Any, Any, int], Scorer]  # of a model in eval mode, its tokenizer, and prompts per forward pass


def read_pieces(source: str, shots: int, limit: int | None, size: int) -> list[Piece]:
    """The test split of `source` by subject, cut into pieces of at most `size` items.

    shots: solved examples before each question, the first ones of the subject in the dev split, MMLU's own choice.
    limit: at most so many items a subject, None for all. Raises UserError for data that cannot be used so.
    """
    items = read_items(source, split="test")
    for number, item in enumerate(items):
        if item.subject not in category_of():
            raise UserError(
                f"{_place(source, number)}: field 'subject' is {item.subject!r}, which is none of MMLU's 57 subjects."
                f"{did_you_mean(item.subject, category_of())} They are listed in bench/accuracy/subjects.yaml."
            )
    chosen = {s: [i for i in items if i.subject == s][:limit] for s in category_of()}
    examples = _examples(source, shots, [s for s in chosen if chosen[s]])
    return [
        Piece(subject, first, tuple(of_one[first : first + size]), examples[subject])
        for subject, of_one in chosen.items()
        for first in range(0, len(of_one), size)
    ]


def _examples(source: str, shots: int, subjects: list[str]) -> dict[str, tuple[Item, ...]]:
    if shots == 0:
        return dict.fromkeys(subjects, ())
    if Path(source).is_file():
        raise UserError(
            f"--shots {shots}: {source} is one file, the items to answer; solved examples stand in dev.jsonl."
            " Pass the folder that holds test.jsonl and dev.jsonl, or --shots 0"
        )
    try:
        dev = read_items(source, split="dev")
    except UserError as e:
        raise UserError(f"--shots {shots}: {e}; or pass --shots 0") from None
    there = Counter(item.subject for item in dev)
    for subject in subjects:
        if there[subject] < shots:
            raise UserError(
                f"--shots {shots}: the dev split of {source} has {there[subject]} items with subject {subject!r}."
                f" Pass --shots 0 to {min(there[s] for s in subjects)}."
            )
    return {s: tuple(item for item in dev if item.subject == s)[:shots] for s in subjects}


def _place(source: str, number: int) -> str:
    """'file:line' of an item where the source is a JSONL file, the item's number otherwise."""
    path = Path(source)
    path = path / "test.jsonl" if path.is_dir() else path
    if path.suffix != ".jsonl" or not path.is_file():
        return f"{source}: test item {number + 1}"
    lines = [n for n, line in enumerate(path.read_bytes().split(b"\n"), 1) if line.strip()]
    return f"{path}:{lines[number]}"


def fingerprint(pieces: list[Piece]) -> str:
    """16 hex digits over everything that is asked."""
    text = json.dumps([astuple(piece) for piece in pieces])
    return hashlib.sha256(text.encode()).hexdigest()[:16]
