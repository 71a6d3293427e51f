"""A report as one HTML page that needs nothing else: page.html.j2 filled in. All text is escaped."""

import base64
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, Template
from markdown_it import MarkdownIt

from bench.errors import printable
from plots.render.blocks import Block
from plots.render.markdown import markdown


def page(blocks: Sequence[Block], title: str, folder: Path) -> str:
    """The page; `folder` holds the SVG of each figure, which go into it: sharp at any size, and nothing to fetch."""

    def svg(stem: str) -> str:
        return base64.b64encode((folder / f"{stem}.svg").read_bytes()).decode()

    prose = MarkdownIt("commonmark", {"html": False})
    return _template().render(blocks=blocks, title=title, svg=svg, html=lambda block: prose.render(markdown([block])))


@cache
def _template() -> Template:
    found = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,  # not what is HTML already
    )  # fmt: skip
    return found.get_template("page.html.j2")
