"""What a report is made of: a list of blocks, of plain text. Markdown and the page are written from it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, compress, groupby


@dataclass(frozen=True)
class Heading:
    """A heading. What stands below one of level 2 is a section, which the page may show folded, or leave off paper."""

    text: str
    level: int = 2
    folded: bool = False
    printed: bool = True  # else its figures alone are, and nothing where it has none


@dataclass(frozen=True)
class Para:
    text: str
    kind: str = "plain"  # or answer, or notice


@dataclass(frozen=True)
class Items:
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Code:
    text: str


@dataclass(frozen=True)
class Links:
    """Files beside the report."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Figure:
    """A drawn figure: the stem of its PNG and SVG in the folder, and its title."""

    stem: str
    title: str


@dataclass(frozen=True)
class Table:
    """A table with one value a cell. Its first columns say what a line is; the others come in groups with a head."""

    title: str
    caption: str
    lead: tuple[str, ...]
    groups: tuple[tuple[str, tuple[str, ...]], ...]  # name, and its sub-columns; without any it is one column
    lines: tuple[tuple[str, ...], ...]

    @property
    def heads(self) -> list[str]:
        """A head for each column: 'Launch gap, ms'."""
        return [
            *self.lead,
            *(", ".join(filter(None, (name, sub))) for name, subs in self.groups for sub in subs or [""]),
        ]

    def without_empty_columns(self) -> "Table":
        """Without the columns after the lead that are empty in every line, and without groups of such."""
        filled = [any(column) for column in zip(*self.lines, strict=True)]
        rest = iter(filled[len(self.lead) :])
        groups = [(name, [sub for sub in subs or [""] if next(rest)]) for name, subs in self.groups]
        kept = tuple((name, tuple(filter(None, subs))) for name, subs in groups if subs)
        shown = [*[True] * len(self.lead), *filled[len(self.lead) :]]
        return replace(self, groups=kept, lines=tuple(tuple(compress(line, shown)) for line in self.lines))

    @property
    def starts(self) -> list[int]:
        """The columns with which groups begin."""
        return list(accumulate([len(self.lead), *(len(subs) or 1 for _, subs in self.groups[:-1])]))

    @property
    def subjects(self) -> Iterator[tuple[str, list[tuple[str, ...]]]]:
        """Neighbouring lines with the same first cell, which they may share, without it."""
        return ((name, [line[1:] for line in lines]) for name, lines in groupby(self.lines, lambda line: line[0]))

    @property
    def width(self) -> int:
        """Characters of the widest cells of all columns, side by side, with the heads right above them."""
        above = [*self.lead, *(sub for name, subs in self.groups for sub in subs or [name])]
        return sum(max(map(len, column)) for column in zip(above, *self.lines, strict=True))


@dataclass(frozen=True)
class Beside:
    """Blocks that stand side by side where there is room."""

    blocks: tuple[Figure | Table, ...]


Block = Heading | Para | Items | Code | Links | Figure | Table | Beside
