"""The conditions of --where: axis=value, or axis=value,value for any of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bench.errors import UserError, did_you_mean


@dataclass(frozen=True)
class Condition:
    """One --where."""

    text: str  # as given
    axis: str
    value: str

    def names(self, value: str) -> bool:
        """Whether it lets through a value that need not be there."""
        return value in self.value.split(",")

    def chosen(self, options: Sequence[str], absent: str, on_request: Sequence[str] = ()) -> set[str]:
        """Those of the options that it lets through.

        absent: how a sentence about a value that is none of them goes on; on_request: what else might be named. Raises
        UserError for such a value. The text as a whole may be an option: targets hold commas.
        """
        wanted = {self.value} if self.value in options else set(self.value.split(","))
        for value in sorted(wanted - set(options)):
            shown = ", ".join(o or "''" for o in options[:20]) or "none, because the other conditions leave nothing"
            shown += f"; on request: {', '.join(on_request)}" if on_request else ""
            hint = did_you_mean(value, [*options, *on_request])
            raise UserError(f"--where {self.text}: {value!r} {absent}.{hint} Values of {self.axis}: {shown}.")
        return wanted


def parse_where(where: Iterable[str], axes: Sequence[str]) -> list[Condition]:
    """The conditions that were given. Raises UserError where one is malformed, or of no such axis."""
    conditions = []
    for text in where:
        axis, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--where {text}: a condition has the form axis=value. Axes: {', '.join(axes)}.")
        if axis not in axes:
            hint = did_you_mean(axis, axes)
            raise UserError(f"--where {text}: unknown axis {axis!r}.{hint} Axes: {', '.join(axes)}.")
        conditions.append(Condition(text, axis, value))
    return conditions


def text_of(value: object) -> str:
    """An axis value as people type it: 32 for 32.0, nothing for None."""
    if value is None:
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
