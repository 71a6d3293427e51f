"""A comparison as Markdown for a GitHub step summary or comment, and as annotations of a workflow.

Names come from files that anybody may have written: whatever could be markup, a mention or a link stands as plain text.
"""

import re
from collections.abc import Iterator, Sequence

from bench.compare.comparison import Comparison, columns, left_lines
from bench.compare.sentence import Judged, tally
from bench.compare.verdict import Verdict
from bench.errors import one_line

MOST_SHORT, MOST_ROWS, MOST_LINES = 20, 200, 50  # a comment has room for 65,536 characters
MOST_ANNOTATIONS = 10  # of a step, which is what GitHub shows
LONGEST = 300  # characters of one text


def as_markdown(c: Comparison) -> str:
    """A heading with the result, the sentence, a short table of what changed, and all rows folded."""
    changed = [(p, o) for p, o in c.judged if o.verdict in (Verdict.SLOWER, Verdict.FASTER)]
    changed.sort(key=lambda j: -j[1].ratio)
    result = "" if c.limit is None else f": {'failed' if c.failed else 'passed'}"
    parts = [f"### lorabench compare{result}", _text(c.sentence)]
    if c.limit:
        parts.append(f"{len(c.failed)} of {len(c.judged)} rows {'is' if len(c.failed) == 1 else 'are'} {c.limit}.")
    if changed:
        parts += _cut(changed[:MOST_SHORT], len(changed), "more changed")
    if c.judged:
        parts += ["<details><summary>All rows</summary>", *_cut(c.judged[:MOST_ROWS], len(c.judged), "more")]
        parts.append("</details>")
    about = [*(s.describe() for s in c.sides), f"on {c.sides[0].run.get('gpu')}", *c.notes, tally(c.judged)]
    about += left_lines(c.left)
    more = [f"{len(about) - MOST_LINES} more lines"] * (len(about) > MOST_LINES)
    told = "\n".join(f"- {_text(line)}" for line in [*about[:MOST_LINES], *more])
    return "\n\n".join([*parts, "<details><summary>What was compared</summary>", told, "</details>", ""])


def _cut(rows: Sequence[Judged], of: int, what: str) -> list[str]:
    """The table of these rows, and how many there are beside them."""
    return [_table(rows)] + [f"and {of - len(rows)} {what}; `--format json` has all"] * (of > len(rows))


def _table(judged: Sequence[Judged]) -> str:
    heads, lines = columns(judged)
    left = ("case", "pass", "clock", "verdict")
    rule = ["---" if head in left else "---:" for head in heads]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [heads, rule, *([_text(x) for x in y] for y in lines)])


def _text(text: str) -> str:
    """Text as GitHub shows it, letter by letter: an entity is never markup, and no name behind a zero-width space is
    mentioned, linked or looked up."""
    shown = one_line(text)
    shown = shown if len(shown) <= LONGEST else shown[: LONGEST - 3] + "..."
    return _MARKS.sub(lambda found: f"&#{ord(found[0])};{'&#8203;' * (found[0] in '@#')}", shown)


# Whatever is no letter, digit or one of these signs; a point only inside a number or at the end of a word, and a colon
# only there, since elsewhere they make a link.
_MARKS = re.compile(r"(?!(?<=\d)\.(?=\d)|[.:](?= |$))[^\w /,;()%-]|_")


def annotations(c: Comparison) -> Iterator[str]:
    """Workflow commands that mark the step: an error for each row that --fail is about."""
    for cells in columns(c.failed[:MOST_ANNOTATIONS])[1]:
        case, pass_, clock, _, _, ratio, interval, *_ = cells
        message = f"{case}, {pass_}, clock {clock}: B/A {ratio} [{interval}], SLOWER"
        yield f"::error title=lorabench compare::{_command(message)}"


def _command(text: str) -> str:
    """As the data of a workflow command, which ends with its line."""
    return one_line(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
