"""How cells, cases and conditions are told in words: numbers with their intervals, labels, captions."""

import math
import re
from collections.abc import Iterable, Sequence

from plots.data.case import METHODS, OWN_AXES, Case
from plots.data.length_fit import Estimate
from plots.data.load import Folder, text
from plots.data.results import Book, Cell, Ratio

LEVELS = {
    "linear": "single linear layers",
    "block": "one decoder block of each model",
    "model": "whole models with their loss",
}
CLOCK_WORDS = {
    "eager": "what a training script sees: GPU events around the call, launch cost included",
    "cpu": "wall time on the CPU",
    "graph": "GPU time without any launch cost, from a replayed CUDA graph",
    "device": "gap-free GPU time of the eager call",
    "host": "time for Python and C++ to enqueue the work, without waiting for the GPU",
}
NOISY = "†"
OTHER_CLOCK = "‡"  # a number from clock device, where graph has none
RATIO_PLACES = 3
WIDE = 0.2  # of the value


def distinct(values: Iterable[object]) -> list[str]:
    """The values as text, empty ones left out, without repetitions, in order of first appearance."""
    return list(dict.fromkeys(v for v in map(text, values) if v is not None))


def listed(values: Sequence[str]) -> str:
    """'a, b and c'."""
    return " and ".join([", ".join(values[:-1]), values[-1]] if len(values) > 1 else values)


def shape_word(shape: tuple[int, int]) -> str:
    """(4, 512) -> '4 x 512'."""
    return f"{shape[0]} x {shape[1]}"


def shapes_word(shapes: Sequence[tuple[int, int]]) -> str:
    """All of a few shapes, or the ends of many."""
    if len(shapes) <= 4:
        return listed([shape_word(s) for s in shapes])
    by_size = sorted(shapes, key=lambda s: s[0] * s[1])
    return f"{len(shapes)} shapes from {shape_word(by_size[0])} to {shape_word(by_size[-1])}"


def decimals(value: float, half: float | None) -> int:
    """Decimals that show two digits of the uncertainty, but no more than four digits of a value of 1 or more."""
    size = max(math.floor(math.log10(abs(value))), -2) if value else 0
    most = max(3 - size, 0)
    if not half:
        return most
    return max(min(most, 1 - math.floor(math.log10(half))), 0)


def with_interval(found: Estimate, most: int = 9) -> str:
    """'61.89 ± 0.12' with `most` decimals at most; the uncertainty is rounded up. Where there is none, it says so.

    A wide interval is mostly lopsided, and told by its ends, '2.50 [0.81, 9.38]': ± would promise impossible times.
    """
    places = min(decimals(found.value, found.half), most)
    if found.half is None or found.low is None or found.high is None:
        return f"{found.value:.{places}f} (no interval)"
    if found.half > WIDE * abs(found.value):
        places = max(decimals(found.value, None) - 1, 0)  # three digits of the value
        return f"{found.value:.{places}f} [{found.low:.{places}f}, {found.high:.{places}f}]"
    return f"{found.value:.{places}f} ± {_rounded_up(found.half, places)}"


def difference_word(found: Estimate, sign: str = "+", most: int = 9) -> str:
    """'+12.1 ± 0.3', a difference: it may be near zero, so only its uncertainty says how many digits it has."""
    places = min(decimals(found.value, found.half), most)
    if found.half is None:
        return f"{found.value:{sign}.{places}f} (no interval)"
    return f"{found.value:{sign}.{places}f} ± {_rounded_up(found.half, places)}"


def _rounded_up(half: float, places: int) -> str:
    return f"{math.ceil(round(half * 10**places, 6)) / 10**places:.{places}f}"


def time_word(cell: Cell, by: float = 1.0) -> str:
    """The time of a cell in ms, or in the unit that is ms / `by`; or the status that stands in its place."""
    if cell.time is None:
        return cell.status
    return with_interval(cell.time.times(by)) + (f" {NOISY}" if cell.noisy else "")


def ratio_word(ratio: Ratio) -> str:
    """The ratio with its interval, 1 for Full-FT itself, or the word that stands in its place."""
    if ratio.value is None:
        return ratio.word
    if ratio.scope == "by definition":
        return "1"
    return with_interval(ratio.value, RATIO_PLACES) + (f" {NOISY}" if ratio.noisy else "")


def labels(cases: Sequence[Case]) -> dict[Case, str]:
    """A name for the training type of each case: method and implementation, and the axes in which its namesakes differ.

    Cases that differ only in model, layer, batch or length get the same name: they are one line of a table.
    """
    told = (*OWN_AXES, "accumulation")
    seen: dict[tuple[str, str], dict[str, list[str]]] = {}
    for case in cases:
        axes = seen.setdefault((case.method, case.impl), {axis: [] for axis in told})
        for axis in told:
            if (value := text(getattr(case, axis)) or "none") not in axes[axis]:
                axes[axis].append(value)
    named = {}
    for case in cases:
        axes = seen[(case.method, case.impl)]
        extra = [f"{_short(axis)} {text(getattr(case, axis)) or 'none'}" for axis in told if len(axes[axis]) > 1]
        named[case] = " ".join([METHODS.get(case.method, case.method), case.impl, *extra])
    return named


def _short(axis: str) -> str:
    return {"trainable_layers": "layers", "adapter_dtype": "adapters"}.get(axis, axis)


def cut_models(models: Iterable[object]) -> str:
    """'4 blocks of tinyllama' where all are models cut to a few blocks, which their names say; else nothing."""
    found = [re.fullmatch(r"(.+)-(\d+)-blocks", model) for model in distinct(models)]
    told = [f"{match[2]} blocks of {match[1]}" for match in found if match]
    return listed(told) if told and len(told) == len(found) else ""


def place(folder: Folder, level: str) -> str:
    """Level and device in a few words, for titles."""
    what = {"linear": "linear layers", "block": "one decoder block", "model": "whole models"}.get(level, level)
    if level == "model":
        what = cut_models(row.get("model") for row in folder.rows if row.get("level") == level) or what
    return f"{what} on a CPU, no GPU times" if folder.is_cpu else f"{what} on {folder.device}"


def scene(folder: Folder, cases: Sequence[Case]) -> str:
    """What was run, where and at which size: 'one decoder block of each model on a CPU, fp32, 1 x 64'."""
    cut = cut_models(c.model for c in cases if c.level == "model")
    levels = LEVELS | ({"model": f"{cut} at their real width, with head and loss"} if cut else {})
    what = listed([levels.get(level, level) for level in distinct(c.level for c in cases)])
    precisions = ", ".join(distinct(c.precision for c in cases))
    words = f"{what} on {folder.device}, {precisions}, {shapes_word(list(dict.fromkeys(c.shape for c in cases)))}"
    return f"{words}: CPU times, no GPU times" if folder.is_cpu else words


def method_conditions(cases: Sequence[Case]) -> list[str]:
    """'LoRA: rank 8, alpha 32, ...' for each method that sets axes of its own."""
    found = []
    for method in dict.fromkeys(c.method for c in cases if c.rank is not None):
        own = [c for c in cases if c.method == method]
        parts = []
        for axis in OWN_AXES[1:]:
            if values := distinct(getattr(c, axis) for c in own):
                parts.append(f"{_short(axis)} {' or '.join(values)}")
        found.append(f"{METHODS.get(method, method)}: {', '.join(parts)}")
    return found


def caption(folder: Folder, book: Book, cases: Sequence[Case], *clocks: str) -> str:
    """Every held constant of a table or figure, in one paragraph."""
    shown = set(cases)
    cells = [cell for key, cell in book.cells.items() if key[2] in clocks and cell.time and key[0] in shown]
    parts = [scene(folder, cases), *([f"clock{'s' if len(clocks) > 1 else ''} {listed(clocks)}"] if clocks else [])]
    parts += [f"L2 {listed(states)}" for states in [distinct(c.l2 for c in cases)] if states]
    parts += [f"trainable layers: {listed(t)}" for t in [distinct(c.trainable_layers for c in cases)] if t]
    steps = distinct(c.accumulation for c in cases)
    parts += [f"micro-steps to an optimizer step: {listed(steps)}; backward adds to gradients that are there"] * bool(
        steps
    )
    parts += method_conditions(cases)
    parts += [f"the models' own dropout: {words}" for words in [_model_dropout(folder, cases)] if words]
    if cells:
        scopes = distinct(cell.scope for cell in cells)
        low, high = min(cell.n for cell in cells), max(cell.n for cell in cells)
        count = str(low) if low == high else f"{low} to {high}"
        parts.append(
            f"each time is the median of {count} samples, ± the larger side of its 95 % interval, "
            f"or [low, high] where that is wide ({listed(scopes)})"
        )
    versions = [f"{name} {folder.run[name]}" for name in ("torch", "triton", "transformers") if folder.run.get(name)]
    if folder.run.get("driver"):
        versions.append(f"driver {folder.run['driver']}")
    if versions:
        parts.append(", ".join(versions))
    if not folder.is_cpu:
        parts.append(f"clocks {folder.clocks_word}")
    parts += [f"measured {when}" for when in [dates(folder)] if when]
    if folder.is_cpu and folder.run.get("threads"):
        parts.append(f"{folder.run['threads']} threads")
    joined = "; ".join(parts)
    return joined[:1].upper() + joined[1:] + "."


def _model_dropout(folder: Folder, cases: Sequence[Case]) -> str:
    models = {case.model for case in cases}
    by_model: dict[str, str] = {}
    for row in folder.rows:
        value = text(row.get("model_dropout"))
        if row.get("model") in models and value is not None:
            by_model[str(row["model"])] = value
    if len(set(by_model.values())) <= 1:
        return next(iter(by_model.values()), "")
    return ", ".join(f"{model} {value}" for model, value in by_model.items())


def dates(folder: Folder) -> str:
    """The day, or the first and the last day, on which rows were measured."""
    days = sorted({str(row["measured_at"])[:10] for row in folder.rows if row.get("measured_at")})
    return " to ".join(dict.fromkeys([days[0], days[-1]])) if days else ""
