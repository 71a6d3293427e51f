"""The answer as a short table: the fastest ways of training beside what most people have."""

from collections.abc import Sequence

from bench.record.budget import tokens_per_s
from bench.record.numbers import with_interval
from bench.record.shortlist import Option, Over, shortlist, verdicts
from plots.data.labels import shape_word
from plots.data.panels import Panel
from plots.render.blocks import Table
from plots.text.headline import answer_panel, choice
from plots.text.numbers import marked, ratio_word

LINES = 8


def shortlist_table(panels: Sequence[Panel]) -> Table | None:
    """A line for each case among which the headline tells of the fastest; None where it tells of none."""
    panel = answer_panel(panels)
    options, over = choice(panel) if panel else ([], None)
    return _table(panel, options, over) if panel and over and options else None


def _table(panel: Panel, options: Sequence[Option], over: Over) -> Table:
    kept, case, (unit, by) = shortlist(options, LINES), options[0].case, panel.unit
    every = {o.case.method for o in kept} == {o.case.method for o in options}
    speed, memory = panel.level == "model", any(o.gib for o in kept)
    lines = []
    for option, verdict in zip(kept, verdicts(kept, over), strict=True):
        words = [marked(with_interval(option.ms.times(by)), panel.time(option.case, "forward-backward").noisy)]
        words += [f"{tokens_per_s(option.ms, option.case.tokens).value:,.0f}"] * speed
        words += [f"{option.gib:.3g}" if option.gib else "not measured"] * memory
        lines.append((option.name, *words, ratio_word(panel.ratio(option.case)), verdict))
    heads = [f"Forward-backward ({unit})", *["Tokens a second"] * speed, *["Peak memory (GiB)"] * memory]
    return Table(
        f"{case.subject} at {shape_word(case.size)}",
        f"The fastest of {'each method' if every else 'most methods'}, Full-FT, and PEFT, which most people have.",
        ("Training type",),
        tuple((head, ()) for head in (*heads, "Ratio to Full-FT", "Verdict")),
        tuple(lines),
    )
