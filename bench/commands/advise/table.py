"""The answer for people: a ranked table and one sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from rich.text import Text

from bench.case import Case
from bench.case.shapes import layers_text
from bench.commands.advise.largest import MOST_BATCH, largest_of
from bench.methods.registry import methods
from bench.record.budget import cost_of_million, tokens_of, tokens_per_s
from bench.record.numbers import with_interval, with_span
from bench.record.shortlist import Option, Over, sentence, shortlist, verdicts
from bench.record.stats import Estimate
from bench.roofline.memory import need, size_text
from bench.terminal import PlainTable, plain_table

GIB = 2**30


@dataclass(frozen=True)
class Room:
    """The largest batch at the length asked for and the largest length at the batch asked for that fit; None where that
    is not known. estimated: by closed form, not tried; at_least: the time was over before the largest was found;
    too_small: what was asked for does not fit."""

    batch: int | None = None
    seq: int | None = None
    estimated: bool = False
    at_least: tuple[str, ...] = ()
    too_small: bool = False

    def cell(self, axis: str) -> str:
        """'16', '~16' of an estimate, '>= 16'."""
        value: int | None = getattr(self, axis)
        if value is None:
            return "not known"
        open_ended = axis in self.at_least or (axis, value) == ("batch", MOST_BATCH)
        return f"{'>= ' if open_ended else '~' if self.estimated else ''}{value}"


@dataclass(frozen=True)
class Found:
    """What was measured or predicted: options with times, cases without (and why), and what fits."""

    options: Sequence[Option]
    over: Over
    lost: Sequence[tuple[Case, str]] = ()
    pass_: str = "step"
    predicted: bool = False
    rooms: Mapping[Case, Room] = field(default_factory=dict)

    def write(self, found: Estimate) -> str:
        """A value with its interval, so that what is predicted never looks measured."""
        if not self.predicted:
            return with_interval(found)
        low, high = (found.value if end is None else end for end in (found.low, found.high))
        return with_span(found.value, low, high)

    @property
    def shown(self) -> list[Option]:
        return shortlist(self.options)


def name_of(case: Case) -> str:
    """'LoRA triton', 'PaCA eager on the top 12 blocks'."""
    label = methods()[case.method].label if case.method in methods() else case.method
    layers = {"all": ""}.get(case.trainable_layers, f" on {layers_text(case.trainable_layers)}")
    return f"{label} {case.impl}{layers}"


def answer_tables(found: Found, price: float | None, narrow: bool = False) -> list[PlainTable]:
    """Ranked lines, the fastest first; below them what has no time. narrow: in two tables, the second of memory and
    price, with intervals in lines of their own."""
    shown, per, lost = found.shown, found.pass_, [(name_of(case), why) for case, why in found.lost]
    rooms = [found.rooms.get(o.case, Room()) for o in shown]
    words: dict[str, list[str]] = {
        f"{per} ms": [found.write(o.ms) for o in shown],
        "tokens/s": [f"{rate(o, per):,.0f}" for o in shown],
    }
    ratios = [found.write(o.ratio) if o.ratio else "1" if o.is_baseline else "not known" for o in shown]
    ends = {"ratio to Full-FT": ratios, "verdict": verdicts(shown, found.over)}
    tried = any(o.gib is not None for o in shown)  # what was measured stands beside no estimate
    budget = {"peak GiB": [peak(o, estimate=not tried) for o in shown]}
    if any(r.batch is not None or r.seq is not None for r in rooms):
        budget |= {f"largest {n}": [r.cell(axis) for r in rooms] for n, axis in (("batch", "batch"), ("length", "seq"))}
    if price is not None:
        budget["price of 1M tokens"] = [f"{cost(o, per, price):.3g}" for o in shown]
    names = [o.name for o in shown]
    if not narrow:
        return [_table(names, words | budget | ends, lost)]
    broken = {head: [w.replace(" [", "\n[").replace(" (", "\n(") for w in column] for head, column in words.items()}
    broken |= {"ratio to Full-FT": [w.replace(" [", "\n[").replace(" (", "\n(") for w in ratios]}
    return [_table(names, broken | {"verdict": ends["verdict"]}, lost), _table(names, budget, ())]


def _table(names: Sequence[str], columns: Mapping[str, Sequence[str]], lost: Sequence[tuple[str, str]]) -> PlainTable:
    """lost: names without numbers, each with the last column's word."""
    table = plain_table(("training", *columns), right=[*columns.keys() - {"verdict"}], wrap=("verdict",))
    for name, *cells in zip(names, *columns.values(), strict=True):
        table.add_row(name, *map(Text, cells))
    for name, why in lost:
        table.add_row(name, *[""] * (len(columns) - 1), why)
    return table


def rate(option: Option, pass_: str) -> float:
    """Tokens a second."""
    return tokens_per_s(option.ms, tokens_of(option.case, pass_)).value


def cost(option: Option, pass_: str, price: float) -> float:
    """Of a million tokens, at that price of an hour."""
    return cost_of_million(option.ms, tokens_of(option.case, pass_), price).value


def peak(option: Option, estimate: bool = True) -> str:
    """Peak memory in GiB; where it was not measured, by closed form, with ~ before it."""
    if option.gib is not None:
        return f"{option.gib:.3g}"
    about = need(option.case, step=True).about if estimate else None
    return "not known" if about is None else f"~{about / GIB:.3g}"


def room_by_formula(case: Case, limit: int | None) -> Room:
    """By closed form, in so many bytes; not known where there is none, but where not even the least fits."""
    if limit is None:
        return Room()
    if need(case, step=True).about is None:
        return Room(estimated=True, too_small=need(case, step=True).at_least > limit)

    def fits(sized: Case) -> bool:
        return (need(sized, step=True).about or 0) <= limit

    batch, seq = (largest_of(case, axis, fits) for axis in ("batch", "seq"))
    return Room(batch, seq, estimated=True, too_small=not fits(case))


def barred(found: Found, limit: int | None) -> Found:
    """What does not fit into so many bytes is nothing to use, whatever its time."""

    def bar(room: Room | None) -> str:
        if room is None or not room.too_small or limit is None:
            return ""
        return f"does not fit in {size_text(limit)}{', by estimate' if room.estimated else ''}"

    return replace(found, options=[replace(o, bar=bar(found.rooms.get(o.case))) for o in found.options])


def answer(found: Found) -> str:
    """What to use, how much faster than what most people have, at what memory."""
    return sentence(found.options, found.over, found.pass_, found.write)
