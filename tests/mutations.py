"""Damage for files: hypothesis strategies of what a disk, an editor or a stranger makes of a JSON document or of bytes.

    @given(damaged_json({"rank": 4, "shapes": {"q_proj": [4, 8]}}))
    def test_a_damaged_file_is_refused_in_a_sentence(written: bytes) -> None: ...

`mutated` gives values, `damaged_json` files of one document, `damaged_json_lines` files of several, `damaged` bytes.
"""

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import HealthCheck
from hypothesis import strategies as st

Where = tuple[str | int, ...]

#: What json.dumps could not write: 100,000 opening brackets, and an integer of more digits than Python reads.
DEEP, LONG = "a value nested too deeply", "an integer of 5000 digits"
_WRITTEN = {DEEP: "[" * 100_000, LONG: "9" * 5000}

ODD_NUMBERS = (
    0, -1, 1, 2, -3, 0.5, 1.0, 1e-300, 1e308, 2**31, 2**53 + 1, -(2**63), 2**64, 10**9, 10**30, 10**400,
    float("nan"), float("inf"), float("-inf"),
)  # fmt: skip
ODD_TEXTS = (
    "", " ", "12", "-1", "null", "true", "NaN", "../x", "/etc/passwd", "a/../../b", ".", "~", "http://nowhere.invalid/x",
    "a\x00b", "\x1b[31mred\x1b[0m", "line\nbreak", "\u202egnp.exe", "\ud83d", "\udc80", "ä", "a" * 300, "9" * 5000,
)  # fmt: skip
ODD_KEYS = ("", "__class__", "auto_map", "a\x00b", "\ud83d", "../x", "x" * 300)

ODD_PARTS = ([], {}, [[]], [None], {"a": None}, [0, "0"], [[1, 2], [3]], {"": {"": {}}})

#: settings() of a test that tries many files in one temporary folder.
FUZZ: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [HealthCheck.function_scoped_fixture],
}

odd_values = st.one_of(
    st.sampled_from((None, None, DEEP, LONG, float("nan"))),
    st.sampled_from((True, False, *ODD_NUMBERS, *ODD_TEXTS, *ODD_PARTS)).map(copy.deepcopy),
    st.integers() | st.text(max_size=20) | st.lists(st.sampled_from(ODD_NUMBERS), max_size=5),
)


@st.composite
def mutated(draw: st.DrawFn, document: Any, most: int = 2) -> Any:
    """The document after one to `most` changes at any depth: a value replaced by an odd one or by another of its own, a
    key dropped, added or renamed, an item dropped or doubled. It may hold NaN, lone surrogates, DEEP and LONG."""
    changed = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, most))):
        places = list(_places(changed, ()))
        where = draw(st.sampled_from(places))
        if not where:
            changed = draw(odd_values)
            continue
        parent = changed
        for step in where[:-1]:
            parent = parent[step]
        how = draw(st.sampled_from(("odd", "odd", "odd", "other", "drop", "add", "rename")))
        if how == "odd":
            parent[where[-1]] = draw(odd_values)
        elif how == "other":
            parent[where[-1]] = copy.deepcopy(_at(changed, draw(st.sampled_from(places))))
        elif how == "drop":
            del parent[where[-1]]
        elif isinstance(parent, list):
            parent.insert(int(where[-1]), copy.deepcopy(parent[int(where[-1])]) if how == "add" else draw(odd_values))
        else:
            value = draw(odd_values) if how == "add" else parent.pop(where[-1])
            parent[draw(st.sampled_from(ODD_KEYS))] = value
    return changed


def _places(value: Any, where: Where) -> Iterator[Where]:
    yield where
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from _places(inner, (*where, key))


def _at(value: Any, where: Where) -> Any:
    for step in where:
        value = value[step]
    return value


def written(value: Any) -> bytes:
    """A value of `mutated` as a JSON file: NaN and infinities as Python writes them, DEEP and LONG as what they are."""
    text = json.dumps(value)
    for word, meant in _WRITTEN.items():
        text = text.replace(json.dumps(word), meant)
    return text.encode()


@st.composite
def damaged_json(draw: st.DrawFn, document: Any) -> bytes:
    """A file of the document: mostly valid JSON of other content, with a key given twice now and then, else damaged."""
    how = draw(st.sampled_from(("value", "value", "value", "value", "twice", "bytes")))
    if how == "bytes":
        return draw(damaged(written(document)))
    text = written(draw(mutated(document)))
    if how == "twice" and text.endswith(b"}") and isinstance(document, dict) and document:
        key, value = draw(st.sampled_from(sorted(document))), draw(odd_values)
        return text[:-1] + b", " * (len(text) > 2) + written({key: value})[1:]
    return text


@st.composite
def damaged_json_lines(draw: st.DrawFn, documents: Sequence[Any]) -> bytes:
    """A file of JSON lines in which one is another, is damaged or stands twice, or which is damaged as a whole."""
    lines = [written(document) for document in documents]
    if draw(st.integers(0, 5)) == 0:
        return draw(damaged(b"\n".join(lines) + b"\n"))
    i = draw(st.integers(0, len(lines) - 1))
    lines[i : i + 1] = [draw(damaged_json(documents[i])), *lines[i : i + draw(st.integers(0, 1))]]
    return b"\n".join(lines) + draw(st.sampled_from((b"\n", b"\n", b"", b"\n\n", b"\r\n")))


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes after one to three of: a cut, a flipped bit, a piece put in, a piece taken out, zeros to the end."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(changed)))
        how = draw(st.sampled_from(("cut", "flip", "insert", "remove", "zeros")))
        if how == "cut":
            del changed[at:]
        elif how == "flip" and at < len(changed):
            changed[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "insert":
            changed[at:at] = draw(
                st.sampled_from((b"\x00", b"\xff\xfe", b'"', b"[", b"}", b"\n", b"\xef\xbb\xbf", b"-1"))
            )
        elif how == "remove":
            del changed[at : at + draw(st.integers(1, 16))]
        else:
            changed[at:] = bytes(len(changed) - at)
    return bytes(changed)
