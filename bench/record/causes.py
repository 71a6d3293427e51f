"""causes.csv: what the time of a pass goes into; and the sentence that tells a difference to Full-FT by its causes."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isclose
from pathlib import Path
from typing import Any

from bench.case.causes import AGREES, CAUSE_ROW, CAUSES, SOURCES
from bench.case.schema import PASSES
from bench.errors import listed, short
from bench.reading import shape_of
from bench.record.numbers import with_interval
from bench.record.read import CELLS, read_csv, write_csv
from bench.record.stats import RATIO_TELLS, Estimate

CAUSES_CSV = "causes.csv"

Key = tuple[str, str, str]  # case_id, pass, clock

TOLD = 3  # causes that a sentence names
LEAST = 0.03  # share of the difference below which a cause is not named
MOST = 2.0  # share of the difference above which causes are told in ms
SAME = 1e-3  # part of a median within which causes that add up to it are its own, and not an earlier measurement's
# In place of causes.
APART, UNCERTAIN, DISAGREE = "not told apart from 1", "too uncertain", "ratio and medians disagree"
SAME_SPEED = 1.15  # largest quotient of the scales of two profiles that are compared as they are


@dataclass(frozen=True)
class Part:
    """What one cause takes of one call: time in ms, its interval, and what it did. None where it is not known."""

    ms: float
    low: float | None = None
    high: float | None = None
    launches: int | None = None
    bytes: float | None = None
    flops: float | None = None


@dataclass(frozen=True)
class Split:
    """One pass of a case under one clock by its causes, which add up to its median. Fields as in CAUSE_ROW."""

    parts: Mapping[str, Part]  # by cause, in the order of CAUSES
    scale: float | None
    remainder: float | None
    source: str

    @property
    def total_ms(self) -> float:
        return sum(part.ms for part in self.parts.values())

    def is_of(self, median_ms: float) -> bool:
        """Whether it tells of what has this median, and not of an earlier measurement."""
        return isclose(self.total_ms, median_ms, rel_tol=SAME)

    @property
    def agrees(self) -> bool:
        """Whether profile and clock tell of the same time."""
        return self.remainder is not None and self.remainder <= AGREES

    def beyond(self, base: "Split") -> dict[str, Estimate]:
        """By cause, how much more time this pass takes than the same pass of `base`, in ms; the intervals' variances
        add up, since the two were profiled apart. In the order of CAUSES; the values add up to the difference."""
        found = {}
        for cause in CAUSES:
            ours, theirs = self.parts.get(cause), base.parts.get(cause)
            if ours or theirs:
                ours, theirs = ours or Part(0.0, 0.0, 0.0), theirs or Part(0.0, 0.0, 0.0)
                found[cause] = _difference(ours, theirs)
        return found


def _difference(ours: Part, theirs: Part) -> Estimate:
    value = ours.ms - theirs.ms
    if None in (ours.low, ours.high, theirs.low, theirs.high):
        return Estimate(value)
    below = ((ours.ms - ours.low) ** 2 + (theirs.high - theirs.ms) ** 2) ** 0.5  # type: ignore[operator]
    above = ((ours.high - ours.ms) ** 2 + (theirs.ms - theirs.low) ** 2) ** 0.5  # type: ignore[operator]
    return Estimate(value, value - below, value + above)


def write_causes(folder: Path, splits: Mapping[Key, Split]) -> None:
    """Writes causes.csv as a whole, one line for each case, pass, clock and cause. Raises OSError."""
    lines = (
        {"case_id": case_id, "pass": pass_, "clock": clock, "cause": cause, **part.__dict__,
         "scale": split.scale, "remainder": split.remainder, "source": split.source}
        for (case_id, pass_, clock), split in splits.items()
        for cause, part in split.parts.items()
    )  # fmt: skip
    write_csv(folder / CAUSES_CSV, (column.name for column in CAUSE_ROW), lines)


def read_causes(folder: Path) -> dict[Key, Split]:
    """causes.csv of a folder by case_id, pass and clock; empty where there is none. Raises UserError for a damaged one,
    with its line."""
    path = folder / CAUSES_CSV
    if not path.is_symlink() and not path.exists():
        return {}
    found: dict[Key, dict[str, Any]] = {}
    for row in read_csv(path, _LINE, CAUSE_ROW, _MEND, _MEND, _NEEDED):
        found.setdefault((row["case_id"], row["pass"], row["clock"]), {})[row["cause"]] = row
    return {key: _split(rows) for key, rows in found.items()}


_MEND = f"Remove {CAUSES_CSV} and run python -m bench why again."


def _known(row: dict[str, Any]) -> dict[str, Any]:
    for name, valid in (("cause", CAUSES), ("pass", PASSES), ("source", SOURCES)):
        if row.get(name) not in valid:
            raise ValueError(f"{name} is {short(row.get(name))}; valid: {', '.join(valid)}")
    ends = [v for v in (row.get("low"), row["ms"], row.get("high")) if v is not None]
    if ends != sorted(ends):
        raise ValueError(f"low, ms, high are {', '.join(map(str, ends))}, which is no interval")
    return row


_NEEDED = ("case_id", "pass", "clock", "cause", "ms", "source")
_LINE = shape_of({column.name: CELLS[column.kind] for column in CAUSE_ROW}, _NEEDED, _known)


def _split(rows: dict[str, dict[str, Any]]) -> Split:
    parts = {cause: Part(*(rows[cause].get(f) for f in Part.__dataclass_fields__)) for cause in CAUSES if cause in rows}  # type: ignore[arg-type]
    first = next(iter(rows.values()))
    return Split(parts, first.get("scale"), first.get("remainder"), first["source"])


def unexplained(ratio: Estimate | None, total_ms: float) -> str:
    """What stands in place of causes where a ratio has no difference to explain, by its interval and by how much the
    medians differ: APART, UNCERTAIN or DISAGREE; empty where there is one."""
    if ratio is None or ratio.low is None or ratio.high is None or ratio.low <= 1 <= ratio.high:
        return APART
    if not ratio.within(RATIO_TELLS):
        return UNCERTAIN
    return "" if total_ms * (ratio.value - 1) > 0 else DISAGREE


def sentence(
    name: str,
    base_name: str,
    pass_: str,
    ratio: Estimate,
    split: Split,
    base: Split,
    verb: str = "takes",
    anyhow: bool = False,
) -> str:
    """'LoRA peft-fp32 forward takes 1.58 times Full-FT eager's: of the extra 36.1 ms, 61 % is branch GEMMs, 30 % dtype
    casts and 9 % launches/gaps.' Of a pass that is faster, the time saved is told; of one whose interval holds 1, that
    it is not told apart. A cause whose own interval holds 0 has no share. ratio: with its interval. anyhow: causes are
    told of an uncertain difference too, as of a prediction, whose ends move together."""
    told = f"{name} {pass_} {verb} {with_interval(ratio, 2)} times {base_name}'s"
    beyond = split.beyond(base)
    total = sum(e.value for e in beyond.values())
    word = unexplained(ratio, total)
    explained = anyhow and total != 0
    if word == APART and not explained:
        return f"{told}, which is {word}: there is no difference to explain."
    if word == UNCERTAIN and not explained:
        return f"{told}: that is {word} to explain."
    if word == APART:
        told += f", {word}"
    if word == DISAGREE:
        return f"{told}, but the medians of the two differ by {total:+.3g} ms: their causes cannot be told."
    shares = {cause: e.value / total for cause, e in beyond.items() if abs(e.value) >= LEAST * abs(total)}
    sure = {cause: share for cause, share in shares.items() if _tells(beyond[cause])}
    with_it = sorted((c for c, s in sure.items() if s > 0), key=lambda c: -sure[c])[:TOLD]
    against = sorted((c for c, s in sure.items() if s < 0), key=lambda c: sure[c])[:TOLD]
    said = f"{told}: of the {f'extra {total:.3g} ms' if total > 0 else f'{-total:.3g} ms saved'}"
    if not with_it:
        return f"{said}, no cause stands out of the noise between the two profiles."
    # Where causes that are far larger than their sum cancel each other, a share of it says nothing.
    in_ms = max(map(abs, sure.values())) > MOST
    amount = {c: f"{abs(beyond[c].value):.3g} ms" if in_ms else f"{100 * abs(sure[c]):.0f} %" for c in sure}
    words = [f"{amount[c]} {'' if i else 'is '}{CAUSES[c].label}" for i, c in enumerate(with_it)]
    said += f", {listed(words)}"
    if against:
        words = [f"{CAUSES[c].label} ({amount[c]})" for c in against]
        said += f"; {'less' if total > 0 else 'more'} goes into {listed(words)}"
    if unsure := [CAUSES[c].label for c in shares if c not in sure]:
        said += f"; not told from noise: {listed(unsure)}"
    if not (split.agrees and base.agrees):
        said += f". Profile and clock differ by more than {100 * AGREES:.0f} %: the shares are rough"
    elif split.scale and base.scale and not 1 / SAME_SPEED <= split.scale / base.scale <= SAME_SPEED:
        said += ". The machine was not equally fast in the two profiles: the shares are rough"
    return said + "."


def _tells(found: Estimate) -> bool:
    """Whether a difference has a sign."""
    return found.low is None or found.high is None or not found.low <= 0 <= found.high
