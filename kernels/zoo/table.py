"""The rows as a table for the terminal and as docs/models.md."""

from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version

from .row import NOT_BUILT, REFUSED, SERVED, WRONG, Row

HEADER = ("arch", "accelerate", "paca", "reason")
COMMAND = "python -m kernels.zoo --markdown docs/models.md"


def cells(row: Row) -> tuple[str, str, str, str]:
    """One row of the table."""
    return row.arch, _accelerate(row), _paca(row), reason(row)


def reason(row: Row) -> str:
    """Why something is not as one would wish, in one line; empty where all is well."""
    parts = [row.reason] if row.reason else []
    if row.accelerate:
        left = [f"{count} left to PEFT: {why}" for why, count in row.accelerate.left.items()]
        parts += left + ([row.accelerate.reason] if row.accelerate.reason else [])
        if row.accelerate.equal and 2 * row.accelerate.reached < row.accelerate.adapted:
            parts.append(f"the inputs reach {row.accelerate.reached} of PEFT's {row.accelerate.adapted} layers")
    if row.paca:
        parts += [f"{count} left by paca: {why}" for why, count in row.paca.left.items()]
        parts += [f"paca: {row.paca.reason}"] if row.paca.reason else []
        if row.paca.works and 2 * row.paca.reached < row.paca.layers:
            parts.append(f"the inputs reach {row.paca.reached} of paca's {row.paca.layers} layers")
    return "; ".join(parts)


def _accelerate(row: Row) -> str:
    found = row.accelerate
    if found is None:
        return "at fault" if row.died else "-"
    if found.equal is None:
        return "refused"
    return f"{found.fused} of {found.adapted}, {'equal' if found.equal else 'NOT EQUAL'}"


def _paca(row: Row) -> str:
    if row.paca is None:
        return "at fault" if row.died else "-"
    if row.paca.works is None:
        return "refused"
    count = row.paca.layers + sum(row.paca.left.values())
    return f"{row.paca.layers} of {count}, {'works' if row.paca.works else 'FAILS'}"


def totals(rows: Sequence[Row]) -> str:
    """The whole in one sentence."""
    count = Counter(row.status for row in rows)
    fused = [row.accelerate for row in rows if row.accelerate and row.accelerate.equal and row.accelerate.fused]
    full = sum(found.fused == found.adapted for found in fused)
    works = sum(bool(row.paca and row.paca.works) for row in rows)
    return (
        f"{len(rows) - count[NOT_BUILT]} of {len(rows)} architectures were tried: accelerate() fuses layers of "
        f"{len(fused)} with PEFT's results, {full} of them in full, and paca() works on {works}; {count[SERVED]} have "
        f"both, {count[REFUSED]} are refused in part with a reason, {count[WRONG]} at fault; {count[NOT_BUILT]} could "
        "not be built here."
    )


def terminal(rows: Sequence[Row]) -> str:
    """The table with aligned columns."""
    lines = [HEADER, *(cells(row) for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(3)]
    return "\n".join(" | ".join((*(line[i].ljust(widths[i]) for i in range(3)), line[3])).rstrip() for line in lines)


def markdown(rows: Sequence[Row]) -> str:
    """docs/models.md."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    left = [row for row in rows if row.status == NOT_BUILT]
    tried = [cells(row) for row in rows if row.status != NOT_BUILT]
    text = _TEXT.format(totals=totals(rows), command=COMMAND, versions=versions)
    text += "\n" + _markdown_table(HEADER, tried)
    if left:
        text += _LEFT.format(count=len(left)) + "\n"
        text += _markdown_table(("arch", "reason"), [(row.arch, row.reason) for row in left])
    return text


_TEXT = """# Models

{totals}

Written by `{command}` with {versions}. An architecture is transformers' `model_type`, as in config.json. Each is a tiny model with random weights, on a CPU in float32.

- **accelerate**: layers that the fused call computes, of those that PEFT's LoRA adapts under `target_modules="all-linear"`. Equal: outputs and gradients are PEFT's within rounding, in evaluation and in training, and `restore` undoes it.
- **paca**: layers that `paca()` adapts under `targets="all-linear"`. Works: the first output is the pretrained one; gradients are those of plain autograd; a step of AdamW changes the chosen columns and nothing else; saving, loading, merging and removing give the outputs they promise.
"""  # noqa: E501, a paragraph of Markdown is a line
_LEFT = """
## Not built here: {count}

This tool could not make a tiny model with inputs for these. That says nothing about the kernels.
"""


def _markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    escaped = [[cell.replace("|", "\\|").replace("<", "&lt;") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in (header, ["---"] * len(header), *escaped))
