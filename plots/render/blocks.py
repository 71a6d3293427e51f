"""A report is a list of blocks; here they become Markdown and one self-contained HTML page. All text is escaped."""

import base64
import html
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from plots.data.panels import Table

NUMBER = re.compile(r"^([+-]?[\d.:]+)((?: ± [\d.:]+| \[[-\d., ]+\]| to [\d.]+)?(?: %)?)((?: [†‡])*)$")
WIDE = 135  # characters in a line; a wider table is set smaller

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; color: #1c2024;
  background: #fff; margin: 0 auto; padding: 1.2rem 1rem 3rem; max-width: 80rem; }
h1 { font-size: 1.55rem; line-height: 1.25; margin: .4rem 0 .6rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .6rem; padding-top: .7rem; border-top: 1px solid #d9dde1; }
p, ul { max-width: 46rem; margin: .5rem 0; }
ul { padding-left: 1.2rem; }
.answer { font-size: 1.12rem; line-height: 1.5; border-left: 4px solid #0072b2; padding: .1rem 0 .1rem .9rem;
  margin: 1rem 0; }
.notice { background: #fff4e0; border: 1px solid #e9c46a; border-radius: 4px; padding: .5rem .8rem; font-weight: 600; }
.wide { overflow-x: auto; margin: .6rem 0; }
table { border-collapse: collapse; border-bottom: 2px solid #1c2024; font-size: .86rem;
  font-variant-numeric: tabular-nums; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
.caption { color: #4b545c; font-size: .8rem; line-height: 1.45; max-width: 62rem; margin: .2rem 0 .6rem; }
th, td { padding: .26rem .42rem; text-align: right; white-space: nowrap; }
th { font-weight: 600; vertical-align: bottom; }
thead th.group { text-align: center; border-bottom: 1px solid #aab2b9; }
thead tr:last-child th { border-bottom: 2px solid #1c2024; }
tbody tr.first > * { border-top: 1px solid #d9dde1; }
table.small { font-size: .76rem; }
.small th, .small td { padding: .22rem .3rem; }
th.lead, td.lead { text-align: left; }
td.lead.main { font-weight: 600; vertical-align: top; }
td.lead.long { white-space: normal; overflow-wrap: anywhere; min-width: 9rem; max-width: 16rem; }
td.start, th.start { padding-left: 1.1rem; }
.small td.start, .small th.start { padding-left: .6rem; }
td small { color: #66707a; font-size: .8em; }
td.word { color: #8a3b00; font-style: italic; }
td.none { color: #66707a; }
figure { margin: 1rem 0 1.6rem; }
figure img { width: 100%; height: auto; }
pre { background: #f4f6f7; border-radius: 4px; padding: .6rem .8rem; overflow-x: auto; font-size: .84rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; font-size: .86rem; }
dt { color: #4b545c; } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { body { font-size: 15px; } dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; }
  .figscroll { overflow-x: auto; } figure img { min-width: 44rem; } }
@media print { @page { size: A4 landscape; margin: 12mm; } body { font-size: 10pt; padding: 0; max-width: none; }
  .wide { overflow: visible; } table, table.small { font-size: 7.6pt; }
  th, td, .small th, .small td { padding: .15rem .35rem; }
  table, figure { break-inside: avoid; } pre { white-space: pre-wrap; } h2 { break-after: avoid; } }
"""


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Para:
    text: str
    kind: str = "plain"  # or answer, or notice


@dataclass(frozen=True)
class Items:
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Code:
    text: str


@dataclass(frozen=True)
class Figure:
    """A drawn figure: the stem of its PNG and SVG in the folder, its title, and the caption that stands below it."""

    stem: str
    title: str
    caption: str  # stands inside the drawing too


Block = Heading | Para | Items | Facts | Code | Figure | Table


def md_text(value: str) -> str:
    """Text that Markdown shows as it is, in a paragraph or a table cell."""
    plain = html.escape(" ".join(value.split()), quote=False)
    return re.sub(r"([\\`*\[\]|~])|(?<!\w)(_)|(_)(?!\w)", lambda m: "\\" + m.group(0), plain)


def md_table(table: Table) -> str:
    """The columns of a group share one cell, as in the paper: 'forward at 4 x 512 / 4 x 1024'."""
    heads = [*table.lead, *(" ".join([name, " / ".join(filter(None, subs))]).strip() for name, subs in table.groups)]
    rows = [heads, ["---"] * len(table.lead) + ["---:"] * len(table.groups)]
    rows += [[*lead, *(" / ".join(cells) if any(cells) else "" for cells in groups)] for lead, groups in table.lines]
    lines = ["| " + " | ".join(c if i == 1 else md_text(c) for c in row) + " |" for i, row in enumerate(rows)]
    return f"{md_text(table.caption)}\n\n" + "\n".join(lines)


def markdown(blocks: Sequence[Block]) -> str:
    """The report as Markdown, its figures as links to the files beside it."""
    parts = []
    for block in blocks:
        match block:
            case Heading(words, level):
                parts.append("#" * level + " " + md_text(words))
            case Para(words, kind):
                strong = "" if kind == "plain" else "**"
                parts.append(f"{strong}{md_text(words)}{strong}")
            case Items(lines):
                parts.append("\n".join(f"- {md_text(line)}" for line in lines))
            case Facts(pairs):
                parts.append("\n".join(f"- {md_text(name)}: {md_text(value)}" for name, value in pairs))
            case Code(words):
                parts.append("```\n" + words.replace("```", "'''") + "\n```")
            case Figure(stem, title, _):
                parts.append(f"![{md_text(title)}]({stem}.png)")
            case Table():
                parts.append(f"### {md_text(block.title)}\n\n{md_table(block)}")
    return "\n\n".join(parts) + "\n"


def _html_cell(value: str, first: bool) -> str:
    start = " start" if first else ""
    found = NUMBER.match(value)
    if not found:
        kind = "none" if value == "none" else "word"
        return f'<td class="{kind}{start}">{html.escape(value)}</td>'
    number, spread, mark = found.groups()
    small = f"<small>{spread}</small>" if spread else ""
    return f'<td class="num{start}">{number}{small}{mark or ""}</td>'


def html_table(table: Table) -> str:
    """A table with grouped heads; lead cells that repeat the line above are merged with it."""
    grouped = any(any(subs) for _, subs in table.groups)
    span = ' rowspan="2"' if grouped else ""
    top = [f'<th class="lead"{span} scope="col">{html.escape(name)}</th>' for name in table.lead]
    for name, subs in table.groups:
        kind = "group start" if any(subs) else "start"
        top.append(f'<th class="{kind}" colspan="{len(subs)}" scope="colgroup">{html.escape(name)}</th>')
    kinds = ("sub", "sub start")
    under = [
        f'<th class="{kinds[i == 0]}" scope="col">{html.escape(sub)}</th>'
        for _, subs in table.groups for i, sub in enumerate(subs)
    ]  # fmt: skip
    body = []
    for i, (lead, groups) in enumerate(table.lines):
        cells = []
        fresh = i == 0 or table.lines[i - 1][0][0] != lead[0]
        for j, words in enumerate(lead):
            if j == 0:
                if not fresh:
                    continue
                rows = 1
                while i + rows < len(table.lines) and table.lines[i + rows][0][0] == words:
                    rows += 1
                kind = "lead main long" if len(words) > 24 else "lead main"
                cells.append(f'<td class="{kind}" rowspan="{rows}">{html.escape(words)}</td>')
            else:
                cells.append(f'<td class="lead">{html.escape(words)}</td>')
        cells += [_html_cell(v, k == 0) for values in groups for k, v in enumerate(values)]
        body.append(('<tr class="first">' if fresh else "<tr>") + "".join(cells) + "</tr>")
    small = ' class="small"' if _width(table) > WIDE else ""
    head = f"<tr>{''.join(top)}</tr>" + (f"<tr>{''.join(under)}</tr>" if grouped else "")
    words = f'<h3>{html.escape(table.title)}</h3>\n<p class="caption">{html.escape(table.caption)}</p>\n'
    inner = f"<thead>{head}</thead><tbody>\n{chr(10).join(body)}\n</tbody>"
    return f'{words}<div class="wide"><table{small}>{inner}</table></div>'


def _width(table: Table) -> int:
    """Characters of the widest cells of all columns, side by side."""
    subs = [sub for _, subs in table.groups for sub in subs]
    lines = [(*table.lead, *subs), *((*lead, *sum(groups, ())) for lead, groups in table.lines)]
    return sum(max(map(len, column)) for column in zip(*lines, strict=True))


def _html_figure(block: Figure, folder: Path) -> str:
    """The figure as SVG inside the page: sharp at any size, and nothing to fetch."""
    data = base64.b64encode((folder / f"{block.stem}.svg").read_bytes()).decode()
    return (
        f'<figure><div class="figscroll"><img alt="{html.escape(block.title)}" '
        f'src="data:image/svg+xml;base64,{data}"></div></figure>'
    )


def page(blocks: Sequence[Block], title: str, folder: Path) -> str:
    """One HTML file that needs nothing else."""
    parts = []
    for block in blocks:
        match block:
            case Heading(words, level):
                parts.append(f"<h{level}>{html.escape(words)}</h{level}>")
            case Para(words, kind):
                parts.append(f'<p class="{kind}">{html.escape(words)}</p>')
            case Items(lines):
                parts.append("<ul>" + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>")
            case Facts(pairs):
                inner = "".join(f"<dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd>" for k, v in pairs)
                parts.append(f"<dl>{inner}</dl>")
            case Code(words):
                parts.append(f"<pre>{html.escape(words)}</pre>")
            case Figure():
                parts.append(_html_figure(block, folder))
            case Table():
                parts.append(html_table(block))
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{html.escape(title)}</title>\n'
        f"<style>{STYLE}</style>\n</head>\n<body>\n{chr(10).join(parts)}\n</body>\n</html>\n"
    )
