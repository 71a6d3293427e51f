"""The one exception whose text is meant for the person at the keyboard, and the usual sentences of it."""

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(Exception):
    """The request cannot be carried out; nothing was changed. Ends a command with exit status 2.

    The text names the file or flag, what was found there, and what would be valid.
    """


def one_of(what: str, found: object, valid: Iterable[object]) -> str:
    """The usual sentences for a value outside its vocabulary."""
    words = [str(v) for v in valid]
    return f"{what}: {found!r} is not valid.{did_you_mean(found, words)} Valid: {', '.join(words)}."


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
