"""The choice of layers: how many top blocks may train within a budget of time, memory or trained values.

A step's time is a straight line in the number of blocks that train: backward ends at the lowest of them, and forward
goes through all. So the time at a few counts gives the largest count within a budget, and that count is then timed
itself. The paper freezes the lower half or quarter; LoRA on the same layers stands beside, since freezing makes both
faster.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bench.case import Case
from bench.case.shapes import layers_text, trainable_blocks
from bench.commands.advise.request import Asked
from bench.commands.advise.table import GIB, Found
from bench.methods.registry import trainable_params
from bench.record.shortlist import Option, fastest_of_each
from bench.roofline.memory import need, size_text
from bench.terminal import PlainTable, plain_table

TIMED = ("all", "upper-3/4", "upper-1/2")  # those of the paper's Table 2


@dataclass(frozen=True)
class Pair:
    """PaCA and LoRA on the same top blocks, each by its method's fastest implementation; None without a time."""

    blocks: int
    paca: Option | None
    lora: Option | None


def kinds(found: Found) -> list[tuple[str, str]]:
    """(method, impl) of the fastest PaCA and the fastest LoRA."""
    fastest = fastest_of_each(found.options)
    return [(m, fastest[m].case.impl) for m in ("paca", "lora") if m in fastest]


def pairs(found: Found, blocks: int) -> list[Pair]:
    """By number of blocks, the most first; blocks: of the model."""
    by_count: dict[int, dict[str, Option]] = {}
    for option in found.options:
        if option.case.method in ("paca", "lora"):
            by_count.setdefault(trainable_blocks(option.case.trainable_layers, blocks), {})[option.case.method] = option
    return [Pair(n, by.get("paca"), by.get("lora")) for n, by in sorted(by_count.items(), reverse=True)]


def most_blocks(case: Case, times_ms: Mapping[int, float], asked: Asked, limit: int | None) -> tuple[int, str]:
    """How many top blocks fit all budgets, 0 where not one does, and what bounds them. case: on all layers; times_ms:
    of a step by the number of blocks; limit: bytes of memory, by closed form where it is known."""

    def on(count: int) -> Case:
        return replace(case, trainable_layers=str(count))

    bounds: list[tuple[str, Callable[[int], bool]]] = []
    if asked.step_ms is not None:
        budget, slope, start = asked.step_ms, *_line(times_ms)
        bounds.append((f"--step-ms {budget:g}", lambda n: start + slope * n <= budget))
    if asked.trained is not None:
        trained = asked.trained
        bounds.append((f"--trained {trained:,}", lambda n: trainable_params(on(n)) <= trained))
    if limit is not None and need(case, step=True).about is not None:
        bounds.append((f"memory of {size_text(limit)}", lambda n: (need(on(n), step=True).about or 0) <= limit))
    found = {what: max((n for n in range(1, case.blocks + 1) if fits(n)), default=0) for what, fits in bounds}
    what = min(found, key=lambda w: found[w], default="")
    return (found[what], what) if what else (case.blocks, "")


def _line(times_ms: Mapping[int, float]) -> tuple[float, float]:
    """Slope and value at 0 of a line through times by count; flat through a single one."""
    counts = np.array(list(times_ms), dtype=float)
    times = np.array(list(times_ms.values()), dtype=float)
    if len(counts) < 2:
        return 0.0, float(times[0])
    slope, start = np.polyfit(counts, times, 1)
    return float(slope), float(start)


def layers_table(shown: Sequence[Pair], found: Found, asked: Asked) -> PlainTable:
    """A line for each count of blocks: PaCA's step, LoRA's on the same layers, their ratio, and what they train."""
    numbers = ("PaCA ms", "LoRA ms", "PaCA / LoRA", "PaCA trains", "LoRA trains")
    table = plain_table(("layers", *numbers, "within the budget"), right=numbers)
    for pair in shown:
        sides = (pair.paca, pair.lora)
        ratio = found.over(pair.paca.case, pair.lora.case) if pair.paca and pair.lora else None
        told = [found.write(o.ms) if o else "not known" for o in sides]
        trained = [f"{trainable_params(o.case):,}" if o else "" for o in sides]
        case = next(o.case for o in sides if o)
        within = {"PaCA": pair.paca, "LoRA": pair.lora}
        names = [name for name, o in within.items() if o and inside(o, asked)]
        words = [*told, found.write(ratio) if ratio else "not known", *trained, " and ".join(names) or "none"]
        table.add_row(f"{layers_text(case.trainable_layers)} ({pair.blocks} blocks)", *words)
    return table


def inside(option: Option, asked: Asked) -> bool:
    """Whether an option keeps the budgets of time, memory and trained values."""
    slow = asked.step_ms is not None and option.ms.value > asked.step_ms
    many = asked.trained is not None and trainable_params(option.case) > asked.trained
    takes = option.gib * GIB if option.gib is not None else need(option.case, step=True).about
    large = asked.memory is not None and takes is not None and takes > asked.memory
    return not (slow or many or large)


def layers_sentence(shown: Sequence[Pair], count: int, bound: str, found: Found, asked: Asked) -> str:
    """The most layers within the budget, and LoRA on the same ones. count, bound: what most_blocks found."""
    kept = [p for p in shown if p.paca and inside(p.paca, asked)]
    if not kept:
        line = " by the line through these times" if bound.startswith("--step-ms") else ""
        alone = "" if count else f", and{line} not even one block would"
        return f"No count of top blocks that was timed keeps {bound or 'the budget'}{alone}."
    best = max(kept, key=lambda p: p.blocks)
    assert best.paca is not None
    said = f"The most layers within {bound or 'the budget'}: {best.paca.name}, {found.write(best.paca.ms)} ms"
    if best.lora:
        ratio = found.over(best.paca.case, best.lora.case)
        said += f"; {best.lora.name} takes {found.write(best.lora.ms)} ms"
        said += f", so PaCA takes {found.write(ratio)} times LoRA's time on the same layers" if ratio else ""
    fastest = min(kept, key=lambda p: p.paca.ms.value if p.paca else 0.0)
    if fastest is not best and fastest.paca:
        said += f". The fastest within it that was timed: {fastest.paca.name}, {found.write(fastest.paca.ms)} ms"
    return said + ". Whether fewer layers learn the task as well, no time tells."
