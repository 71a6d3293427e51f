"""The one exception whose text is meant for the person at the keyboard, and the usual sentences of it."""

import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from shlex import quote


class UserError(Exception):
    """The request cannot be carried out; nothing was changed. Ends a command with exit status 2.

    The text names the file or flag, what was found there, and what would be valid. It is one line, whatever it names.
    """

    def __init__(self, text: str) -> None:
        super().__init__(one_line(text))


def printable(text: str) -> str:
    """The text as it may stand on a terminal and on a page: whatever steers instead of showing (control characters,
    changes of writing direction, halves of surrogate pairs) as its escape. Line feeds and tabs stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in _SPACES else repr(c)[1:-1] for c in text)


_SPACES = "\n\t\xa0\u202f"  # that Python does not count as printable


def one_line(text: str) -> str:
    """The same with line feeds escaped too: what stands in one line of output cannot pretend to be the next."""
    return printable(text).replace("\n", "\\n")


def shell_line(words: Iterable[str]) -> str:
    """A command to paste into a shell. A word with bytes that no terminal shows stands there as $'...'."""
    return " ".join(quote(word) if one_line(word) == word else f"$'{_escaped(word)}'" for word in words)


def _escaped(word: str) -> str:
    return "".join(chr(b) if 32 <= b < 127 and b not in b"\\'" else f"\\x{b:02x}" for b in os.fsencode(word))


EMPTY = "it is empty, and names nothing. The current folder is called ."  # of a path or name that was given as ''


def one_of(what: str, found: object, valid: Iterable[object]) -> str:
    """The usual sentences for a value outside its vocabulary."""
    words = [str(v) for v in valid]
    return f"{what}: {short(found, 200)} is not valid.{did_you_mean(found, words)} Valid: {', '.join(words)}."


def did_you_mean(found: object, valid: Iterable[str]) -> str:
    """A hint, " Did you mean 'model'?", where one of the valid words is close to what was found, else nothing."""
    close = get_close_matches(str(found), list(valid), 1)
    return f" Did you mean {close[0]!r}?" if close else ""


def install(extra: str) -> str:
    """The command that installs one of pyproject.toml's extras, given in a checkout."""
    return f"pip install -c constraints.txt -e '.[{extra}]'"


def short(value: object, width: int = 60) -> str:
    """A value as it was found, cut to what a line of text can hold."""
    text = repr(value)
    return text if len(text) <= width else text[: width - 3] + "..."


def listed(values: Sequence[str]) -> str:
    """'a, b and c'."""
    return " and ".join([", ".join(values[:-1]), values[-1]] if len(values) > 1 else values)
