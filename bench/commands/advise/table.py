"""The answer for people: a ranked table and one sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from bench.case import Case
from bench.commands.advise.largest import largest_of
from bench.methods.registry import methods
from bench.record.budget import tokens_of, tokens_per_s
from bench.record.numbers import with_interval, with_span
from bench.record.shortlist import Option, Over, sentence, shortlist, verdicts
from bench.record.stats import Estimate
from bench.roofline.memory import need
from bench.terminal import PlainTable, plain_table

GIB = 2**30


@dataclass(frozen=True)
class Room:
    """The largest batch at the length asked for and the largest length at the batch asked for that fit; None where that
    is not known. estimated: by closed form, not tried; at_least: the time was over before the largest was found."""

    batch: int | None = None
    seq: int | None = None
    estimated: bool = False
    at_least: tuple[str, ...] = ()

    def cell(self, axis: str) -> str:
        """'16', '~16' of an estimate, '>= 16'."""
        value: int | None = getattr(self, axis)
        if value is None:
            return "not known"
        return f"{'~' if self.estimated else '>= ' if axis in self.at_least else ''}{value}"


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
    layers = {"all": ""}.get(case.trainable_layers, f" on {layers_of(case.trainable_layers)}")
    return f"{label} {case.impl}{layers}"


def layers_of(trainable_layers: str) -> str:
    """'the top 12 blocks', 'upper-1/2'."""
    return f"the top {trainable_layers} blocks" if trainable_layers.isdigit() else trainable_layers


def answer_table(found: Found, price: float | None, narrow: bool = False) -> PlainTable:
    """Ranked lines, the fastest first; below them what has no time. narrow: intervals and heads in lines of their
    own."""
    shown, per, end = found.shown, found.pass_, "\n" if narrow else " "
    rooms = [found.rooms.get(o.case, Room()) for o in shown]
    axes = ("batch", "seq") if any(r.batch is not None or r.seq is not None for r in rooms) else ()
    heads = {"batch": f"largest{end}batch", "seq": f"largest{end}length"}
    numbers = [f"{per} ms", "tokens/s", f"peak{end}GiB", *(heads[axis] for axis in axes)]
    numbers += [*[f"price of{end}1M tokens"] * (price is not None), f"ratio to{end}Full-FT"]
    table = plain_table(("training", *numbers, "verdict"), right=numbers, wrap=("verdict",))
    for option, room, verdict in zip(shown, rooms, verdicts(shown, found.over), strict=True):
        words = [found.write(option.ms), f"{rate(option, per):,.0f}", peak(option), *(room.cell(axis) for axis in axes)]
        words += [] if price is None else [f"{cost(option, per, price):.3g}"]
        words += [found.write(option.ratio) if option.ratio else "1" if option.is_baseline else "not known"]
        words = [w.replace(" [", "\n[").replace(" (", "\n(") if narrow else w for w in words]
        table.add_row(option.name, *map(Text, words), verdict)
    for case, why in found.lost:
        table.add_row(name_of(case), *[""] * len(numbers), why)
    return table


def rate(option: Option, pass_: str) -> float:
    """Tokens a second."""
    return tokens_per_s(option.ms, tokens_of(option.case, pass_)).value


def cost(option: Option, pass_: str, price: float) -> float:
    """Of a million tokens, at that price of an hour."""
    return price / 3600 * 1e6 / rate(option, pass_)


def peak(option: Option) -> str:
    """Peak memory in GiB; ~ before an estimate by closed form."""
    if option.gib is not None:
        return f"{option.gib:.3g}"
    estimate = need(option.case, step=True).about
    return "not known" if estimate is None else f"~{estimate / GIB:.3g}"


def room_by_formula(case: Case, limit: int | None) -> Room:
    """By closed form, in so many bytes; not known of an architecture without one."""
    if limit is None or need(case, step=True).about is None:
        return Room()

    def fits(sized: Case) -> bool:
        return (need(sized, step=True).about or 0) <= limit

    return Room(largest_of(case, "batch", fits), largest_of(case, "seq", fits), estimated=True)


def answer(found: Found) -> str:
    """What to use, how much faster than what most people have, at what memory."""
    return sentence(found.options, found.over, found.pass_, found.write)
