"""The one exception whose text is meant for the person at the keyboard."""


class UserError(Exception):
    """The request cannot be carried out; nothing was changed. Ends a command with exit status 2.

    The text names the file or flag, what was found there, and what would be valid.
    """


def one_of(what: str, found: object, valid: object) -> str:
    """The usual sentence for a value outside its vocabulary."""
    options = ", ".join(str(v) for v in valid)  # type: ignore[attr-defined]
    return f"{what}: {found!r} is not valid; valid are: {options}"


def short(value: object, width: int = 60) -> str:
    """A value as it was found, cut to what a line of text can hold."""
    text = repr(value)
    return text if len(text) <= width else text[: width - 3] + "..."
