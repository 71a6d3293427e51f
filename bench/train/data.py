"""Multiple-choice items in MMLU's layout: from JSONL or Parquet files, a folder of them, or a Hub dataset."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import UserError, short
from bench.train.hub import looks_like_hub_id, offline_without_network, unreachable

LETTERS = ("A", "B", "C", "D")
FIELDS = ("question", "choices", "answer", "subject")

# What a split is called where data in MMLU's layout is found; MMLU's own training split is auxiliary_train.
_ALSO = {"train": ("train", "auxiliary_train"), "validation": ("validation", "val")}


@dataclass(frozen=True)
class Item:
    """One question. answer is the index of the right choice, 0 to 3; subject may be empty, as in MMLU's own training
    split."""

    question: str
    choices: tuple[str, str, str, str]
    answer: int
    subject: str


def prompt(item: Item) -> str:
    """The question as lm-evaluation-harness's mmlu task puts it; `target` continues it."""
    options = "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, item.choices, strict=True))
    return f"{item.question.strip()}{options}\nAnswer:"


def target(item: Item) -> str:
    """What follows the prompt: a space and the letter of the right choice."""
    return f" {LETTERS[item.answer]}"


def read_items(source: str | Path, split: str | None = None) -> list[Item]:
    """All items of a source, checked.

    source: a .jsonl or .parquet file (it is its own split); a folder with one file, or several, for each split
    (train.jsonl, test.jsonl, dev.jsonl, validation.jsonl; a downloaded copy of a Hub dataset); or the id of a Hub
    dataset. split: which one, None for everything that a folder holds. Each item has the fields question (text),
    choices (four texts), answer (0 to 3, or A to D) and subject (text); others are ignored. Raises UserError with
    file, line and field where an item has anything else, and where there is none.
    """
    path = Path(source)
    if path.is_file():
        return _nonempty(_of_file(path), path)
    if path.is_dir():
        return [item for file in _files(path, split) for item in _nonempty(_of_file(file), file)]
    if not looks_like_hub_id(str(source)):
        raise UserError(f"data {str(source)!r}: no such file or folder, and not the id of a Hub dataset (owner/name)")
    return _nonempty(_of_hub(str(source), split), source)


def _nonempty(items: Iterator[Item], where: object) -> list[Item]:
    found = list(items)
    if not found:
        raise UserError(f"{where}: empty; a line is an item with the fields {', '.join(FIELDS)}")
    return found


def _files(folder: Path, split: str | None) -> list[Path]:
    if split is None:
        found = sorted([*folder.glob("*.jsonl"), *folder.glob("*.parquet")])
    else:
        places = (folder, folder / "all", folder / "data")  # the last two: how Hub datasets lay out their files
        names = _ALSO.get(split, (split,))
        patterns = [p for n in names for p in (f"{n}.jsonl", f"{n}.parquet", f"{n}-*.parquet", f"{n}/*.jsonl")]
        found = next((f for place in places for p in patterns if (f := sorted(place.glob(p)))), [])
    if not found:
        wanted = "*.jsonl" if split is None else " or ".join(f"{n}.jsonl" for n in _ALSO.get(split, (split,)))
        there = ", ".join(sorted(p.name for p in folder.iterdir())[:8]) or "nothing"
        raise UserError(f"{folder}: holds no {wanted} (found: {there}); pass such a folder, or one .jsonl file")
    return found


def _of_file(path: Path) -> Iterator[Item]:
    if path.suffix == ".parquet":
        return _of_parquet(path)
    if path.suffix in (".jsonl", ".json"):
        return _of_jsonl(path)
    raise UserError(f"{path}: the name ends in {path.suffix or 'nothing'!r}. It should end in .jsonl or .parquet.")


def _of_jsonl(path: Path) -> Iterator[Item]:
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as e:
        raise UserError(f"{path}: cannot be read ({e.strerror})") from None
    for number, line in enumerate(lines, 1):
        where = f"{path}:{number}"
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as e:
            raise UserError(f"{where}: not UTF-8 text (byte {e.start} of the line); save the file as UTF-8") from None
        if text.strip():
            try:
                value = json.loads(text)
            except (json.JSONDecodeError, RecursionError) as e:
                raise UserError(f"{where}: not valid JSON ({e}); one item a line") from None
            yield _item(value, where)


def _of_parquet(path: Path) -> Iterator[Item]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(f"{path}: Parquet needs pyarrow; pip install 'lorabench[train]', or pass JSONL") from None
    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, pyarrow.ArrowException) as e:
        raise UserError(f"{path}: not a Parquet file that can be read ({e})") from None
    return (_item(row, f"{path}: row {number}") for number, row in enumerate(rows, 1))


def _of_hub(name: str, split: str | None) -> Iterator[Item]:
    offline_without_network()
    try:
        import datasets
    except ImportError:
        raise UserError(f"data {name!r}: Hub datasets need: pip install 'lorabench[train]'; or pass a file") from None
    try:
        try:
            parts: Any = datasets.load_dataset(name, "all")  # MMLU's 57 subjects in one
        except ValueError:  # no configuration of that name: there is one alone, or datasets says which there are
            parts = datasets.load_dataset(name)
    except Exception as e:
        raise unreachable("data", name, e) from None
    names = list(parts) if split is None else [n for n in _ALSO.get(split, (split,)) if n in parts][:1]
    if not names:
        raise UserError(f"data {name!r}: no split {split!r}; it has: {', '.join(parts)}")
    rows = ((f"{name}: {n} row {i}", row) for n in names for i, row in enumerate(parts[n], 1))
    return (_item(row, where) for where, row in rows)


def _item(value: Any, where: str) -> Item:
    if not isinstance(value, dict):
        raise UserError(f"{where}: a {type(value).__name__}, where an item with {', '.join(FIELDS)} is expected")
    for field in FIELDS:
        if field not in value:
            raise UserError(f"{where}: field {field!r} is missing; an item has {', '.join(FIELDS)}")
    for field in ("question", "subject"):
        if not isinstance(value[field], str):
            raise UserError(f"{where}: field {field!r} is {short(value[field])}, where a text is expected")
    choices = value["choices"]
    if not isinstance(choices, list) or len(choices) != len(LETTERS) or not all(isinstance(c, str) for c in choices):
        raise UserError(f"{where}: field 'choices' is {short(choices)}, where a list of four texts is expected")
    for field, text in (("question", value["question"]), *(("choices", c) for c in choices)):
        if not _encodes(text):  # JSON may write down half a character: "\ud83d" without the escape that follows it
            raise UserError(f"{where}: field {field!r} is {short(text)}, which holds half of a surrogate pair")
    answer = value["answer"]
    if isinstance(answer, str) and answer in LETTERS:
        answer = LETTERS.index(answer)
    if type(answer) is not int or not 0 <= answer < len(LETTERS):
        raise UserError(f"{where}: field 'answer' is {short(answer)}; valid are: A to D, or 0 to 3")
    return Item(value["question"], (choices[0], choices[1], choices[2], choices[3]), answer, value["subject"])


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
