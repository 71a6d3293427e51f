"""A report as Markdown, its figures as links to the files beside it. All text is escaped."""

import html
import re
from collections.abc import Sequence

from bench.errors import printable
from plots.render.blocks import Beside, Block, Code, Figure, Heading, Items, Links, Para, Table

# Brackets around an interval stay as they are, for those who read the file itself: a link would need more.
SPECIAL = re.compile(r"[\\`*|~]|\[(?![-+\d])|(?<!\d)\]|\](?=[(:\[])|(?<!\w)_|_(?!\w)")


def markdown(blocks: Sequence[Block]) -> str:
    return "\n\n".join(map(_block, blocks)) + "\n"


def escaped(value: str) -> str:
    """Text that Markdown shows as it is, in a paragraph or a table cell."""
    plain = html.escape(" ".join(printable(value).split()), quote=False)
    return SPECIAL.sub(lambda m: "\\" + m.group(0), plain)


def _block(block: Block) -> str:
    match block:
        case Heading(words, level):
            return "#" * level + " " + escaped(words)
        case Para(words, kind):
            strong = "" if kind == "plain" else "**"
            return f"{strong}{escaped(words)}{strong}"
        case Items(lines):
            return "\n".join(f"- {escaped(line)}" for line in lines)
        case Code(words):
            return "```\n" + printable(words).replace("```", "'''") + "\n```"
        case Links(names):
            return ", ".join(f"[{name}]({name})" for name in names)
        case Beside(blocks):
            return "\n\n".join(map(_block, blocks))
        case Figure(stem, title):
            return f"![{escaped(title)}]({stem}.png)"
        case Table():
            return f"### {escaped(block.title)}\n\n{escaped(block.caption)}\n\n{_table(block)}"


def _table(table: Table) -> str:
    rule = ["---"] * len(table.lead) + ["---:"] * (len(table.heads) - len(table.lead))
    rows = [map(escaped, table.heads), rule, *(map(escaped, line) for line in table.lines)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
