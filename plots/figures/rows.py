"""Rows below headings, by which several axes are read across."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Key = TypeVar("Key", bound=Hashable)
HEIGHT = 0.25  # of a row in inches
GAP = 0.3  # of a row, above a heading


@dataclass(frozen=True)
class Rows(Generic[Key]):
    """Rows that stand together, by name; a heading above them where it is not empty."""

    heading: str
    lines: Sequence[tuple[str, Key]]

    @property
    def height(self) -> float:
        return HEIGHT * (len(self.lines) + (1 + GAP if self.heading else 0))


def lay_rows(axes: "Axes", groups: Sequence[Rows[Key]], named: bool = True) -> list[tuple[Key, float]]:
    """Names on the y axis, headings in bold; returns where each row is. Row 0 is the uppermost.

    named: False of axes that share those of others.
    """
    at, names, bold, found = 0.0, [], [], []
    for group in groups:
        if group.heading:
            names.append((at, group.heading))
            bold.append(len(names) - 1)
            at += 1
        for name, key in group.lines:
            names.append((at, name))
            found.append((key, at))
            at += 1
        at += GAP
    if not named:
        return found
    axes.set_yticks([y for y, _ in names], [name for _, name in names])
    for i in bold:
        axes.get_yticklabels()[i].set_fontweight("bold")
    axes.set_ylim(at - GAP - 0.4, -0.6)
    return found
