"""Multiple-choice items in MMLU's layout: from JSONL or Parquet files, a folder of them, or a Hub dataset."""

from collections.abc import Iterator
from importlib.util import find_spec
from io import BytesIO
from numbers import Integral
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, StrictInt, StrictStr, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from bench.errors import UserError, install, short
from bench.reading import is_there, parse_json, read_bytes
from bench.train.hub import looks_like_hub_id, offline_without_network, unreachable
from bench.train.parquet import rows_as_lines

LETTERS = ("A", "B", "C", "D")

# What a split is called where data in MMLU's layout is found; MMLU's own training split is auxiliary_train.
_ALSO = {"train": ("train", "auxiliary_train"), "validation": ("validation", "val")}
_EXPECTED = {
    "question": "a text",
    "choices": "a list of four texts",
    "answer": "A to D, or 0 to 3",
    "subject": "a text",
}
FIELDS = tuple(_EXPECTED)
WRAPPED = "train"  # cais/mmlu has each row of auxiliary_train as one value of this name

# Bytes. MMLU's largest split, auxiliary_train, has 160 million as JSON lines, and its longest item 12 thousand.
LONGEST_FILE, LONGEST_ITEM = 2**28, 2**20


def _encodes(text: str) -> str:
    text.encode()  # JSON may write half a character: "\ud83d" without the escape that follows
    return text


Text = Annotated[StrictStr, AfterValidator(_encodes)]


def _index(value: Any) -> Any:
    if isinstance(value, Integral) and not isinstance(value, bool):
        return int(value)  # numpy's integers are such
    return LETTERS.index(value) if isinstance(value, str) and value in LETTERS else value


@dataclass(frozen=True)
class Item:
    """One question. answer is the index of the right choice, 0 to 3, and may be given as its letter; subject may be
    empty, as in MMLU's own training split."""

    question: Text
    choices: tuple[Text, Text, Text, Text]
    answer: Annotated[StrictInt, Field(ge=0, lt=len(LETTERS)), BeforeValidator(_index)]
    subject: Text


_ITEM = TypeAdapter(Item)


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
    if is_there(path.is_dir):
        return [item for file in _files(path, split) for item in _nonempty(_of_file(file), file)]
    if is_there(path.exists):
        return _nonempty(_of_file(path), path)
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
    return _of_lines(read_bytes(path, LONGEST_FILE), f"{path}:")


def _of_parquet(path: Path) -> Iterator[Item]:
    if find_spec("pyarrow") is None:
        raise UserError(f"{path}: Parquet needs the package pyarrow. Install it: {install('train')}")
    data = read_bytes(path, LONGEST_FILE)
    return _of_lines(rows_as_lines(path, data, (*FIELDS, WRAPPED), LONGEST_FILE), f"{path}: row ")


def _of_lines(data: bytes, place: str) -> Iterator[Item]:
    for number, line in enumerate(BytesIO(data), 1):
        where = f"{place}{number}"
        if len(line) > LONGEST_ITEM:
            raise UserError(f"{where}: longer than {LONGEST_ITEM} bytes, which is the most that an item may have.")
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as e:
            raise UserError(f"{where}: not UTF-8 text (byte {e.start} of the line); save the file as UTF-8") from None
        if text.strip():
            yield _item(parse_json(text, where, "One item a line."), where)


def _of_hub(name: str, split: str | None) -> Iterator[Item]:
    offline_without_network()
    try:
        import datasets
    except ImportError:
        raise UserError(
            f"data {name!r}: Hub datasets need the package datasets. Install it: {install('train')}"
        ) from None
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
    if isinstance(value, dict) and isinstance(value.get(WRAPPED), dict) and all(value.get(f) is None for f in FIELDS):
        value = value[WRAPPED]
    try:
        return _ITEM.validate_python(value)
    except ValidationError as e:
        first = e.errors(include_url=False)[0]
    if not first["loc"]:
        raise UserError(f"{where}: a {type(value).__name__}, where an item with {', '.join(FIELDS)} is expected.")
    field = str(first["loc"][0])
    if field not in value:
        raise UserError(f"{where}: field {field!r} is missing. An item has {', '.join(FIELDS)}.")
    if first["type"] == "value_error":
        raise UserError(f"{where}: field {field!r} is {short(first['input'])}, which holds half of a surrogate pair.")
    raise UserError(f"{where}: field {field!r} is {short(value[field])}. It should be {_EXPECTED[field]}.")
