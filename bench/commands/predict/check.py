"""python -m bench predict --check: how far predictions lie from everything measured that is at hand."""

import csv
import datetime
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.case import Case
from bench.commands.predict.groups import Group, Tracer
from bench.commands.predict.measured import RESULTS, Models, model_level, of_this_cpu, operators, results
from bench.commands.predict.paper import PAPER, paper
from bench.errors import UserError
from bench.files import between_marks, replace_file
from bench.folder import usable
from bench.predict.judged import Summary, summary, widening
from bench.predict.ops import Trace
from bench.predict.predicted import MODEL_FACTOR
from bench.reading import read_text
from bench.terminal import output, plain_table, say

BEGIN, END = "<!-- check: begin -->", "<!-- check: end -->"
MARKDOWN, TABLE = "predict.md", "check.csv"
_HEAD = ("rows", "mean error", "median", "95th", "bias", "80 % holds", "90 % holds", "target")
LARGEST = 2**22  # bytes of the Markdown file


def check(
    published: Path | None,
    out: Path | None,
    tracer: Tracer | None = None,
    measured: Path = RESULTS,
    tables: Path = PAPER,
) -> int:
    """Prints the errors, and with `out` writes them there: between the markers of predict.md, and as check.csv.

    published: a folder of published timings, which is not part of the project; None: without them. tracer: from a case
    to its operators. Raises UserError before anything is traced where a folder is missing or cannot be written.
    """
    if published is not None and not published.is_dir():
        raise UserError(
            f"--published {published}: no such folder. Give that of the published timings, or leave it out."
        )
    if out is not None:
        redrawn(usable("--out", out) / MARKDOWN, "")
    tracer = _telling(tracer or _traced)
    groups: list[Group] = []
    models = None
    if published is not None:
        groups += operators(published)
        models = model_level(tracer, published)
        groups += models.groups
    groups = [*paper(tracer, tables), *results(tracer, measured), *of_this_cpu(), *groups]
    _show(groups, models)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        replace_file(out / TABLE, _csv(groups))
        path = out / MARKDOWN
        replace_file(path, redrawn(path, "\n".join(_markdown(groups, models))))
        say(f"Written: {path} and {out / TABLE}")
    return 0


def _traced(case: Case) -> Trace:
    from bench.predict.trace import trace  # imports torch where the cache has no trace of the case

    return trace(case)


def _telling(tracer: Tracer) -> Tracer:
    """The same, each case traced once and told of."""
    seen: dict[Case, Trace] = {}

    def traced(case: Case) -> Trace:
        if case not in seen:
            say(f"[{len(seen) + 1}] {case.describe()}")
            seen[case] = tracer(case)
        return seen[case]

    return traced


def _cells(group: Group, found: Summary) -> tuple[str, ...]:
    target = "" if group.target is None else f"{group.target:.0%} {'met' if found.mean <= group.target else 'MISSED'}"
    shares = (found.mean, found.median, found.p95)
    held = (f"{found.within_80:.0%}", f"{found.within_90:.0%}")
    return (str(found.rows), *(f"{s:.1%}" for s in shares), f"{found.bias:+.1%}", *held, target)


def _name(group: Group) -> str:
    return f"{group.name} (FITTED to these rows)" if group.fitted else group.name


def _by_section(groups: Sequence[Group]) -> dict[str, list[Group]]:
    out: dict[str, list[Group]] = {}
    for group in groups:
        if group.judged:
            out.setdefault(group.section, []).append(group)
    return out


def _show(groups: Sequence[Group], models: Models | None) -> None:
    console = output()
    for section, members in _by_section(groups).items():
        console.print()
        console.print(section)
        drawn = plain_table(("", *_HEAD), right=_HEAD[:-1])
        for group in members:
            drawn.add_row(_name(group), *_cells(group, summary(group.judged)))
        console.print(drawn)
    for line in _about_models(models):
        console.print(line, soft_wrap=True)


def _about_models(models: Models | None) -> Iterator[str]:
    if models is None:
        yield "Without published timings: --published gives their folder."
        return
    for what, judged in (("time", models.times), ("ratio", models.ratios)):
        factor = MODEL_FACTOR[what]
        if found := widening(judged, already=factor):
            yield (
                f"To hold 90 % of the rows of models not seen, intervals of a {what} have to be {found.factor:.2f}"
                f" times as wide as the errors of operators say, by {found.rows} rows of {found.subjects} models; where"
                f" each model is left out in turn, the factor of the others holds {found.held:.0%} of the rows. They"
                f" are widened {factor:g} times, which the shares held above have in them."
            )
    known, left_out = models.chosen.known, models.chosen.left_out
    yield f"{len(known)} published rows of whole models can be expressed; {sum(left_out.values())} are left out:"
    by_reason: dict[str, list[str]] = {}
    for (source, reason), count in left_out.items():
        by_reason.setdefault(reason, []).append(f"{source} {count}")
    for reason, sources in sorted(by_reason.items()):
        yield f"- {reason}: {', '.join(sorted(sources))}"


def _markdown(groups: Sequence[Group], models: Models | None) -> Iterator[str]:
    day = datetime.date.today().isoformat()
    yield f"Drawn by `python -m bench predict --check` on {day}. Errors are |predicted / measured - 1|."
    for section, members in _by_section(groups).items():
        yield from (
            "",
            f"**{section}**",
            "",
            f"| | {' | '.join(_HEAD)} |",
            f"| --- |{' ---: |' * (len(_HEAD) - 1)} --- |",
        )
        for group in members:
            yield f"| {_name(group)} | {' | '.join(_cells(group, summary(group.judged)))} |"
    for line in _about_models(models):
        yield from (() if line.startswith("- ") else ("",))
        yield line


def redrawn(path: Path, text: str) -> str:
    """The file's text with `text` between its markers; a file that is not there has the markers and nothing else.
    Raises UserError where one of the markers is missing."""
    old = read_text(path, LARGEST) if path.exists() else f"{BEGIN}\n{END}\n"
    new = between_marks(old, BEGIN, END, f"\n{text}\n")
    if new is None:
        raise UserError(f"{path}: no lines {BEGIN} and {END}, between which the tables belong. Put them in.")
    return new


def _csv(groups: Sequence[Group]) -> str:
    """A line for each group; shares as fractions."""
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(("section", "group", "of", "fitted", "rows", "mean", "median", "p95", "bias", "within_80",
                    "within_90", "target", "note"))  # fmt: skip
    for group in groups:
        if group.judged:
            s = summary(group.judged)
            numbers = (f"{x:.4f}" for x in (s.mean, s.median, s.p95, s.bias, s.within_80, s.within_90))
            lines.writerow(
                (group.section, group.name, group.of, group.fitted, s.rows, *numbers, group.target, group.note)
            )
    return text.getvalue()
