"""From a sweep file to the cases a run measures on this device."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

from bench.case import AXES, Case
from bench.case.clocks import clocks_of
from bench.case.names import tell_apart
from bench.case.shapes import layer_words, model_shape, square, trainable_blocks
from bench.errors import UserError
from bench.methods.registry import method_of, methods
from bench.sweeps.blame import Blame
from bench.sweeps.file import SweepFile, read_sweep, sweep_path
from bench.sweeps.hub import resolved
from bench.sweeps.layer_values import Bad, layers_of
from bench.timing.settings import MeasureSettings
from bench.where import Condition, parse_where, text_of
from bench.yamlfile import Where, YamlFile, place

MOST_CASES = 100_000

# What only some methods have: it differs within a comparison.
ADAPTER_AXES = {name for name, axis in AXES.items() if axis.trains and not (axis.compared or axis.any_method)} - {
    "method",
    "impl",
}
USUAL = {name: axis.usual for name, axis in AXES.items() if axis.usual}

# Words that were impls before there was the axis compile: the impl, and the mode where none is given.
COMPILED = {"compile": ("eager", "default"), "peft-compile": ("peft", "default")}


@dataclass(frozen=True)
class Plan:
    """What one run measures: cases x passes x clocks, and how."""

    sweep: str  # the name or path it was asked for by
    path: Path
    text: str  # the file as read, or as it was changed
    description: str
    cases: tuple[Case, ...]
    passes: tuple[str, ...]
    clocks: tuple[str, ...]  # as the worker is asked for them; eager brings host along
    settings: MeasureSettings
    words: tuple[str, ...]  # of the command line that ask for it: the sweep, or --model and its options
    model: str | None = None  # the short name of the one that --model asked for

    @property
    def name(self) -> str:
        """What it is called: the sweep, or the model."""
        return self.model or self.sweep

    @property
    def row_keys(self) -> list[tuple[str, str]]:
        """The (pass, clock) of every row that a case leaves."""
        return [(p, c) for clock in self.clocks for c in clocks_of(clock) for p in self.passes]


@dataclass(frozen=True)
class Request:
    """What options make of a sweep."""

    change: Callable[[SweepFile], SweepFile]
    text: Callable[[SweepFile], str]  # of what it was changed to
    words: tuple[str, ...]  # the options
    flags: Mapping[str, str]  # by axis, to name where a value cannot be
    name: str  # of the model


def make_plan(sweep: str, on_cpu: bool, where: Sequence[str] = (), request: Request | None = None) -> Plan:
    """Reads a sweep and expands it for a GPU or for the CPU, with what options change of it. Raises UserError where
    either cannot be done."""
    path = sweep_path(sweep)
    file, read = read_sweep(path)
    text = path.read_text(encoding="utf-8")
    if request is not None:
        file = request.change(file)
        text = request.text(file)
    conditions = parse_where(where, (*AXES, "case_id", "pass"))
    asked = _asked_for(file, conditions)
    passes = tuple(dict.fromkeys((on_cpu and file.cpu.passes) or file.passes))
    settings = _settings(file, on_cpu)
    entries = file.entries(on_cpu)
    for values in entries.values():
        values |= {axis: values.get(axis, [None]) + more for axis, more in asked.items()}
    _check_size(entries, read)
    found: dict[str, Case] = {}
    for where_found, values in entries.items():
        blame = Blame(read, where_found, on_cpu, request.flags if request else {})
        if "model" in values and request is None:
            values["model"] = _resolved(values["model"], path.parent, blame)
        for case in _expand(values, on_cpu, blame):
            found.setdefault(case.case_id, case)
            if len(found) > MOST_CASES:  # a value of the axis layer may stand for many
                raise UserError(f"{place(read, where_found)}: more than {MOST_CASES:,} cases, the most of a sweep.")
    cases, passes = _narrow(_side_by_side(list(found.values())), passes, conditions, file.on_request.given())
    tell_apart(c.model for c in cases)
    clocks = ("cpu-time",) if on_cpu else tuple(dict.fromkeys(file.clocks))
    words, model = (request.words, request.name) if request else ((sweep,), None)
    return Plan(sweep, path, text, file.description, cases, passes, clocks, settings, words, model)


def _check_size(entries: Mapping[Where, dict[str, list[Any]]], read: YamlFile) -> None:
    """Raises UserError for more combinations than can be listed, before one of them is made."""
    total = 0
    for where, values in entries.items():
        before = "with the entries before it " if total else ""
        total += prod(map(len, values.values()))
        if total > MOST_CASES:
            counts = " x ".join(f"{len(v):,} of {axis}" for axis, v in values.items() if len(v) > 1)
            raise UserError(
                f"{place(read, where)}: {before}{total:,} cases ({counts}). At most {MOST_CASES:,} in a sweep."
            )


def _asked_for(file: SweepFile, conditions: list[Condition]) -> dict[str, list[Any]]:
    """The values under on_request that --where names, by axis; all of them where it names a case_id."""
    every = any(c.axis == "case_id" for c in conditions)
    found = {
        axis: [v for v in values if every or any(c.axis == axis and c.names(text_of(v)) for c in conditions)]
        for axis, values in file.on_request.given().items()
    }
    return {axis: values for axis, values in found.items() if values}


def _side_by_side(cases: list[Case]) -> list[Case]:
    """Length by length and there model by model, so that a run that is cut off leaves whole columns of a table; within
    a model method by method: what is compared is measured within minutes of each other."""
    models, lengths = ({value: i for i, value in enumerate(dict.fromkeys(values))} for values in
                       ((c.model for c in cases), (c.seq for c in cases)))  # fmt: skip
    return sorted(cases, key=lambda c: (lengths[c.seq], models[c.model]))


def _settings(file: SweepFile, on_cpu: bool) -> MeasureSettings:
    """The sweep's own constants, and on a CPU those under cpu over them."""
    parts = [file.measure, *[file.cpu.measure] * on_cpu]
    given = {k: v for part in parts for k, v in part.model_dump(exclude_unset=True).items()}
    return MeasureSettings(**given)


def _resolved(models: list[str | None], folder: Path, blame: Blame) -> list[str | None]:
    """The models of a sweep file as the axis holds them, each once; relative paths are seen from the file's folder."""
    try:
        return list(dict.fromkeys(m and resolved(m, folder) for m in models))
    except UserError as e:
        raise UserError(f"{blame.at('model')}: {str(e).removeprefix('model: ')}") from None


def _expand(values: dict[str, list[Any]], on_cpu: bool, blame: Blame) -> Iterator[Case]:
    """The cases of one entry under `methods`, in the order of the file: models outermost, shapes innermost."""
    at = place(blame.read, blame.where)
    for key in ("level", "method", "batch", "seq"):
        if key not in values:
            raise UserError(f"{at}: there is no value for {key!r}. Give one here or under axes.")
    if "model" not in values and not all(square(x) for x in values.get("layer", [""])):
        raise UserError(f"{at}: there is no value for 'model'. Only layers called square-N need none.")
    ordered = [a for a in AXES if a in values]
    for combination in product(*(values[a] for a in ordered)):
        point = dict(zip(ordered, combination, strict=True))
        try:
            yield from _cases(point, on_cpu, values.get("model", []))
        except Bad as bad:
            raise UserError(f"{blame.at(bad.axis)}: {bad}") from None
        except UserError as e:  # of what the axis model names
            raise UserError(f"{blame.at('model')}: {str(e).removeprefix('model: ')}") from None


def _cases(point: dict[str, Any], on_cpu: bool, models: list[str]) -> Iterator[Case]:
    """A point with every axis settled: defaults filled in, axes that do not apply emptied."""
    p: dict[str, Any] = {f.name: point.get(f.name) for f in fields(Case)}
    method, level, precision = p["method"], p["level"], p["precision"] or ("fp32" if on_cpu else "bf16")
    p["precision"], p["impl"] = precision, p["impl"] or "eager"
    found = methods()[method]
    if p["impl"] in COMPILED and COMPILED[p["impl"]][0] in found.impls:
        p["impl"], mode = COMPILED[p["impl"]]
        p["compile"] = mode if p["compile"] in (None, USUAL["compile"]) else p["compile"]
    if p["impl"] not in found.impls:
        raise Bad("impl", f"{p['impl']!r} is not an impl of {method}. Valid: {', '.join(found.impls)}.")
    if precision == "fp32" or precision.startswith("amp-"):
        p["impl"] = found.impls[p["impl"]].in_fp32 or p["impl"]
    p |= dict.fromkeys(ADAPTER_AXES - set(found.axes))
    p |= {name: None for name, word in USUAL.items() if p[name] == word}
    if found.adapts:
        for key in ("rank", "alpha"):
            if key in found.axes and p[key] is None:
                raise Bad("method", f"method {method} needs a value for {key!r}.")
        p["alpha"] = None if p["alpha"] is None else float(p["alpha"])
        wide = precision.startswith("amp-") or found.impls[p["impl"]].fp32_adapters
        if "adapter_dtype" in found.axes:
            p["adapter_dtype"] = p["adapter_dtype"] or ("fp32" if wide else precision)
        p["targets"] = (p["targets"] or "all-linear") if "targets" in found.axes and level != "linear" else None
    if "dropout" in found.axes:
        p["dropout"] = p["dropout"] or 0.0
    p["accumulation"] = None if p["accumulation"] == 1 else p["accumulation"]
    p["l2"] = None if on_cpu else p["l2"] or ("cold" if level == "linear" else "warm")
    for layer, model in layers_of(p, models):
        case = Case(**p | {"layer": layer, "model": model, "trainable_layers": _trainable(p)})
        _check(case)
        yield case


def _trainable(p: dict[str, Any]) -> str:
    """The trainable_layers axis; a single layer or block trains whole."""
    spec = p["trainable_layers"] or "all"
    try:
        layers = model_shape(p["model"]).num_layers if p["model"] else 1
        trainable_blocks(spec, layers)
    except ValueError as e:
        raise Bad("trainable_layers", f"{e}. Valid: {layer_words(layers)}.") from None
    return spec if p["level"] == "model" else "all"


def _check(case: Case) -> None:
    shape = case.shape
    if case.level == "linear" and case.gradient_checkpointing is not None:
        raise Bad(
            "gradient_checkpointing",
            f"level linear has no decoder block, which {case.gradient_checkpointing} would compute again. Valid: none.",
        )
    if shape and case.level != "linear" and case.seq > shape.longest:
        allows = f"{case.model_name} allows{shape.why}"
        raise Bad("seq", f"{case.seq} is longer than {allows}. Valid: up to {shape.longest}.")
    if shape and case.targets:
        for target in case.targets.split(","):
            if not shape.match(target):
                names = ", ".join(x.name for x in shape.projections)
                raise Bad("targets", f"{target!r} is no linear layer of {case.model_name}. Valid: all-linear, {names}.")
    if complaint := method_of(case).complaint(case):
        raise Bad(*complaint)


def _narrow(
    cases: list[Case],
    passes: tuple[str, ...],
    conditions: list[Condition],
    on_request: dict[str, list[Any]],
) -> tuple[tuple[Case, ...], tuple[str, ...]]:
    """The cases and passes that every condition lets through."""
    for c in conditions:
        options = passes if c.axis == "pass" else tuple(dict.fromkeys(w for x in cases for w in _words(x, c.axis)))
        chosen = c.chosen(options, "is not in this sweep", [text_of(v) for v in on_request.get(c.axis, [])])
        if c.axis == "pass":
            passes = tuple(p for p in passes if p in chosen)
        else:
            cases = [x for x in cases if chosen.intersection(_words(x, c.axis))]
    return tuple(cases), passes


def _words(case: Case, axis: str) -> list[str]:
    """What --where may call a case's value: as rows have it, by the usual word where that is an empty cell, and by the
    impl's former name where it is compiled."""
    value = getattr(case, axis)
    former = [w for w, found in COMPILED.items() if axis == "impl" and found == (case.impl, case.compile)]
    return [*([USUAL[axis]] if value is None and axis in USUAL else []), text_of(value), *former]
