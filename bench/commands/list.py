"""python -m bench list: cases as a table, without torch."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.case import AXES, Case
from bench.devices import ELSEWHERE, Device, choose_any, entry_flag, gpus, known_devices
from bench.methods.registry import trainable_params, unsupported
from bench.roofline.memory import Need, need, size_text, too_large
from bench.sweeps.of_model import ModelRequest, plan_of
from bench.terminal import Output, PlainTable, output, plain_table
from bench.where import text_of

WIDEST = 10_000  # columns: no table takes more
NUMBERS = ("trained", "min memory", "estimated peak")


@dataclass(frozen=True)
class Line:
    """A case with the memory it needs, and why it would not be measured; empty where it would."""

    case: Case
    need: Need
    note: str

    @property
    def sizes(self) -> tuple[int, int | None]:
        """Bytes: the least that it needs, and about what it peaks at."""
        return self.need.at_least, self.need.about


def show_cases(asked: str | ModelRequest, gpu: str, where: tuple[str, ...]) -> None:
    """Prints one line a case: its id, its axes, the memory it needs, why it would not be measured. On a terminal that
    is too narrow for a column an axis, a table for each comparison, and what the notes say below."""
    device = choose_any(gpu, gpus())
    plan = plan_of(asked, device.is_cpu, where)
    step = "step" in plan.passes
    lines = [_line(case, device, step) for case in plan.cases]
    console = output()
    table = _wide(lines)
    unbounded = console.options.update(max_width=WIDEST)
    if console.measure(table, options=unbounded).maximum <= console.width:
        console.print(table)
    else:
        _show_narrow(console, lines)
    rows = len(plan.cases) * len(plan.row_keys)
    what = f"{len(plan.cases)} cases, {rows} rows ({', '.join(plan.passes)}; clock {', '.join(plan.clocks)})"
    console.print(f"{plan.name} on {device.name}: {what}")
    held = "weights, adapters, gradients" + (" and the optimizer's state" if step else "")
    sentence = f"min memory: {held}; estimated peak: with activations, by estimate for impl eager"
    console.print(sentence)
    if device.index == ELSEWHERE:
        others = [entry_flag(e) for e in known_devices()[device.key] if "memory_gib" in e and e["name"] != device.name]
        also = f" --gpu {device.key} also stands for {', '.join(others)}: name one to see it." if others else ""
        memory = f"its {size_text((device.memory_mib or 0) * 2**20)} are those of bench/gpus.yaml"
        where_found = f"{device.name} is not on this machine: {memory}, and packages are looked for here.{also}"
        console.print(where_found)


def _line(case: Case, device: Device, step: bool) -> Line:
    reason, needs = unsupported(case, "cpu" if device.is_cpu else "cuda"), need(case, step)
    note = f"unsupported: {reason}" if reason else ""
    if not reason and (too_much := too_large(case, step, device.memory_mib)):
        note = f"oom: {too_much.removesuffix('. Nothing was loaded')}"
    if not note and device.memory_mib and (needs.about or 0) > device.memory_mib * 2**20:
        note = f"may not fit: the GPU has {size_text(device.memory_mib * 2**20)}"
    return Line(case, needs, note)


def _wide(lines: Sequence[Line]) -> PlainTable:
    """A column for each axis that says something."""
    shown = [a for a, axis in AXES.items() if axis.listed and any(getattr(x.case, a) is not None for x in lines)]
    table = plain_table(("case_id", *shown, *NUMBERS, "note"), right=NUMBERS)
    for line in lines:
        case = line.case
        values = [text_of(case.model_name if a == "model" else getattr(case, a)) for a in shown]
        table.add_row(case.case_id, *values, f"{trainable_params(case):,}", *map(size_text, line.sizes), line.note)
    return table


def _show_narrow(console: Output, lines: Sequence[Line]) -> None:
    """A table for each comparison, under what its cases share; equal notes are told once, by number."""
    notes = list(dict.fromkeys(line.note for line in lines if line.note))
    widest = max(len(line.case.training) for line in lines)
    unit, by = ("GiB", 2**30) if max(line.need.at_least for line in lines) >= 2**30 else ("MiB", 2**20)
    heads = ("case_id", "training", "trained", "min", "peak", "")
    groups: dict[tuple[object, ...], list[Line]] = {}
    for line in lines:
        groups.setdefault(line.case.alike, []).append(line)
    for same in groups.values():
        first = same[0].case
        table = plain_table(heads, right=heads[2:5])
        table.columns[1].min_width = widest
        for line in same:
            number = f"({notes.index(line.note) + 1})" if line.note else ""
            trained = short_count(trainable_params(line.case))
            sizes = ("" if size is None else f"{size / by:.3g}" for size in line.sizes)
            table.add_row(line.case.case_id, line.case.training, trained, *sizes, number)
        console.print(f"{first.subject}, level {first.level}, {first.conditions}; memory in {unit}")
        console.print(table)
        console.print()
    for i, note in enumerate(notes, 1):
        console.print(f"({i}) {note}")


def short_count(values: int) -> str:
    """'1.56B', '3.15M', '12.3k', '512'."""
    for by, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if values >= by:
            return f"{values / by:.3g}{unit}"
    return str(values)
