"""A report as one HTML page that needs nothing else: page.html.j2 filled in. All text is escaped."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, Template
from markdown_it import MarkdownIt
from markupsafe import Markup

from bench.errors import printable
from plots.render.blocks import Block, Figure, Heading, Table
from plots.render.markdown import markdown
from plots.render.svg import inline_svg

MINOR = ("Forward (", "Backward (", "Refresh (")  # columns that a narrow screen leaves out beside their sum
MOST_WHOLE = 34  # lines of a table that is not cut in two on paper
FEW = 12  # lines of a table that is printed though it is not the first of its section


@dataclass
class Section:
    """A heading of level 2 with what stands below it."""

    heading: Heading
    anchor: str
    blocks: list[Block] = field(default_factory=list)

    @property
    def paper(self) -> str:
        """What of it is printed: 'whole', 'pictures' or 'none'."""
        pictures = any(isinstance(block, Figure) for block in self.blocks)
        return "whole" if self.heading.printed else "pictures" if pictures else "none"


class _Anchors:
    """Ids of headings, from their words; the second of the same words gets a number."""

    def __init__(self) -> None:
        self.used: dict[str, int] = {}

    def __call__(self, words: str) -> str:
        name = re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")[:60].strip("-") or "part"
        self.used[name] = n = self.used.get(name, 0) + 1
        return name if n == 1 else f"{name}-{n}"


def page(blocks: Sequence[Block], title: str, folder: Path) -> str:
    """The page; `folder` holds the SVG of each figure, which go into it: sharp at any size, and nothing to fetch."""
    prose = MarkdownIt("commonmark", {"html": False})
    anchor = _Anchors()
    head, sections = _sections(blocks, anchor)

    def svg(figure: Figure) -> tuple[Markup, float]:
        words, ratio = inline_svg(figure, folder)
        return Markup(words), ratio

    return _template().render(
        head=head, sections=sections, title=title, anchor=anchor, minor=minor, most_whole=MOST_WHOLE, few=FEW, svg=svg,
        kind=lambda block: type(block).__name__, html=lambda block: Markup(prose.render(markdown([block]))),
    )  # fmt: skip


def _sections(blocks: Iterable[Block], anchor: _Anchors) -> tuple[list[Block], list[Section]]:
    """What stands before the first heading of level 2, and the sections."""
    head: list[Block] = []
    sections: list[Section] = []
    for block in blocks:
        if isinstance(block, Heading) and block.level == 2:
            sections.append(Section(block, anchor(block.text)))
        else:
            (sections[-1].blocks if sections else head).append(block)
    return head, sections


def minor(table: Table) -> set[int]:
    """The columns that a narrow screen leaves out: of times whose sum stands beside them."""
    names = [name for name, _ in table.groups]
    if not any(name.startswith("Forward-backward (") for name in names):
        return set()
    return {at for at, name in zip(table.starts, names, strict=True) if name.startswith(MINOR)}


@cache
def _template() -> Template:
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,  # not what is HTML already
    )  # fmt: skip
    return found.get_template("page.html.j2")
