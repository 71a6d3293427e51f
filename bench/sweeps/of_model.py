"""A sweep for one's own model: Table 1's methods under the model, sizes and adapters that options ask for."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from bench.case.case import AXES, LARGEST, OPTIONS
from bench.case.names import plain_name, short_name
from bench.case.schema import BASELINE
from bench.case.shapes import ModelShape, known_name, layer_words, model_shape, trainable_blocks
from bench.errors import UserError, listed, one_of, short
from bench.methods.registry import methods
from bench.sweeps.expand import COMPILED, Plan, Request, make_plan
from bench.sweeps.file import SweepFile, sweep_names
from bench.sweeps.hub import resolved

SWEEP = "table1"


@dataclass(frozen=True)
class ModelRequest:
    """What --model and the options beside it ask for; None where one was not given."""

    model: str  # name in models.yaml, Hub id, folder, config.json
    batch: tuple[int, ...] | None = None
    seq: tuple[int, ...] | None = None
    rank: int | None = None  # of all adapters; alpha stays, as it does in PEFT
    targets: str | None = None
    dropout: float | None = None  # of the LoRA branch
    precision: tuple[str, ...] | None = None
    trainable_layers: tuple[str, ...] | None = None
    method: tuple[str, ...] | None = None  # Full-FT comes with each
    impl: tuple[str, ...] | None = None
    gradient_checkpointing: tuple[str, ...] | None = None
    optimizer: tuple[str, ...] | None = None
    compile: tuple[str, ...] | None = None
    level: str | None = None  # block or model
    sweep: str = SWEEP  # whose methods and passes

    @property
    def words(self) -> tuple[str, ...]:
        """The words of the command line that ask for it."""
        found = [self.sweep] * (self.sweep != SWEEP)
        for f in fields(self):
            value = getattr(self, f.name)
            if value is not None and f.name != "sweep":
                text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
                found += [f"--{f.name.replace('_', '-')}", text]
        return tuple(found)


def model_request(model: str | None, sweep: str | None = None, **options: Any) -> ModelRequest | None:
    """What options as they were typed ask for, lists joined by commas; None without --model. Raises UserError for an
    option without --model, and for what is no count."""
    given = {name: value for name, value in options.items() if value is not None}
    if model is None:
        for name in given:
            raise UserError(
                f"--{name.replace('_', '-')}: this goes with --model. Of a sweep, --where narrows the cases."
            )
        return None
    for name in ("batch", "seq"):
        if name in given:
            given[name] = _counts(f"--{name}", given[name])
    for name in ("precision", "trainable_layers", "method", "impl", *OPTIONS):
        if name in given:
            given[name] = tuple(given[name].split(","))
    return ModelRequest(model, sweep=sweep or SWEEP, **given)


def asked_for(sweep: str | None, model: str | None, **options: Any) -> str | ModelRequest:
    """What the command line asks for: a sweep, by default table1, or a model. Raises UserError as model_request."""
    return model_request(model, sweep, **options) or sweep or SWEEP


def model_plan(request: ModelRequest, on_cpu: bool, where: Sequence[str] = ()) -> Plan:
    """The cases of a sweep's methods for that model; without batch or seq at the sweep's own sizes, as far as the model
    allows. Raises UserError naming the flag."""
    try:
        model = resolved(request.model, Path())
        shape = model_shape(model)
    except UserError as e:
        raise UserError(f"--model: {str(e).removeprefix('model: ')}") from None
    axes: dict[str, list[Any]] = {"model": [model]}
    for name in ("batch", "seq", "precision", "trainable_layers", "level", *OPTIONS):
        if (value := getattr(request, name)) is not None:
            axes[name] = [value] if isinstance(value, str) else list(value)
    _check(request, shape, on_cpu)
    asked = Request(
        change=lambda file: _changed(file, request, axes, shape, on_cpu),
        words=request.words,
        flags={name: f"--{name.replace('_', '-')}" for name in (*axes, "targets", "rank", "dropout")},
        name=short_name(model),
        text=_text,
    )
    plan = make_plan(request.sweep, on_cpu, where, asked)
    if all(c.model is None for c in plan.cases):
        raise UserError(
            f"--model: the sweep {request.sweep} measures nothing of a model, but"
            f" {listed(list(dict.fromkeys(c.subject for c in plan.cases)))}. Name another sweep, or none."
        )
    return plan


def plan_of(asked: str | ModelRequest, on_cpu: bool, where: Sequence[str] = ()) -> Plan:
    """The plan of a sweep, or of a model."""
    return make_plan(asked, on_cpu, where) if isinstance(asked, str) else model_plan(asked, on_cpu, where)


def configs_of(plan: Plan) -> dict[str, dict[str, Any]]:
    """The fields of each config.json that cases are of, by what the axis model holds; models.yaml has the others."""
    models = dict.fromkeys(c.model for c in plan.cases if c.model and known_name(c.model) is None)
    return {model: dict(model_shape(model).config) for model in models}


def folder_name(plan: Plan) -> Path:
    """What names the folder of a plan's results: the sweep's file, or the model; never a model as a sweep."""
    if plan.model is None:
        return plan.path
    name = plain_name(plan.model) + (f"-{plan.path.stem}" if plan.path.stem != SWEEP else "")
    return Path(f"model-{name}.yaml" if name in sweep_names() else f"{name}.yaml")


def _check(request: ModelRequest, shape: ModelShape, on_cpu: bool) -> None:
    """Raises UserError for values that this model cannot have."""
    for length in request.seq or ():
        if length > shape.longest:
            raise UserError(f"--seq: {length} is longer than {request.model} allows{shape.why}. Up to {shape.longest}.")
    for axis in ("precision", *OPTIONS):
        for word in getattr(request, axis) or ():
            valid = AXES[axis].valid or ()
            if word not in valid:
                raise UserError(one_of(f"--{axis.replace('_', '-')}", word, valid))
    if request.dropout is not None and not 0 <= request.dropout < 1:
        raise UserError(f"--dropout: {request.dropout} is no dropout. Give a number from 0 to below 1.")
    if request.level not in (None, "block", "model"):
        raise UserError(one_of("--level", request.level, ("block", "model")))
    whole = request.level == "model" or not (on_cpu or request.level)
    for layers in request.trainable_layers or ():
        try:
            trainable_blocks(layers, shape.num_layers)
        except ValueError as e:
            raise UserError(f"--trainable-layers: {e}. Valid: {layer_words(shape.num_layers)}.") from None
        if not whole and layers != "all":
            raise UserError(
                f"--trainable-layers {layers}: one decoder block is measured, which trains whole. Add --level model, or"
                " leave the option out."
            )


def _changed(
    file: SweepFile, request: ModelRequest, axes: dict[str, list[Any]], shape: ModelShape, on_cpu: bool
) -> SweepFile:
    """The sweep with the model, sizes, methods and adapters asked for."""
    named = list(dict.fromkeys(entry.method[0] for entry in file.methods))
    for word in request.method or ():
        if word in methods() and word not in named:
            raise UserError(
                f"--method: {word} is not among the methods of sweep {request.sweep}: {listed(named)}."
                " Sweep methods has every one: name it before --model."
            )
    wanted = {*_words("--method", request.method, named), BASELINE}
    adapters = wanted - {BASELINE}
    valid = dict.fromkeys(i for m in named if m in (adapters or wanted) for i in _impls(m))
    impls = request.impl and _words("--impl", request.impl, valid)
    entries = []
    for entry in file.methods:
        method = methods()[entry.method[0]]
        more: dict[str, object] = {}
        for axis in ("rank", "targets", "dropout"):
            if (value := getattr(request, axis)) is not None and axis in method.axes and method.adapts:
                more[axis] = [value]
        more |= {axis: axes[axis] for axis in OPTIONS if axis in axes and getattr(entry, axis) is not None}
        if impls and method.adapts:
            more["impl"] = [i for i in impls if i in _impls(entry.method[0])]
        if entry.method[0] in wanted and more.get("impl") != []:
            entries.append(entry.model_copy(update=more))
    instead = on_cpu and file.cpu.axes.seq is not None  # the lengths that are measured are those under cpu
    part = file.cpu.axes if instead else file.axes
    fitting = _fitting(part.seq, axes, shape)
    of_cpu = file.cpu.axes.model_copy(update=axes | (fitting if instead else {}))
    cpu = file.cpu.model_copy(update={"axes": of_cpu, "methods": []})  # those name a model of their own
    passes = list(dict.fromkeys([*file.passes, *["step"] * bool(request.optimizer)]))  # which an optimizer is of
    if cpu.passes and request.optimizer:
        cpu = cpu.model_copy(update={"passes": list(dict.fromkeys([*cpu.passes, "step"]))})
    description = f"The methods of {request.sweep}: {' '.join(request.words)}"
    return file.model_copy(
        update={
            "description": description,
            "axes": file.axes.model_copy(update=axes | ({} if instead else fitting)),
            "methods": entries,
            "passes": passes,
            "cpu": cpu,
        }
    )


def _impls(method: str) -> list[str]:
    """A method's impls, and the words that mean compiled ones."""
    found = methods()[method].impls
    return [*found, *(word for word, (impl, _) in COMPILED.items() if impl in found)]


def _fitting(lengths: Sequence[int] | None, axes: Collection[str], shape: ModelShape) -> dict[str, list[int]]:
    """The sweep's own lengths that the model allows, where none were given."""
    if "seq" in axes or lengths is None:
        return {}
    fitting = [n for n in lengths if n <= shape.longest]
    if not fitting:
        raise UserError(f"--seq: {shape.name} allows {shape.longest} tokens at most. Give a length up to that.")
    return {"seq": fitting}


def _text(file: SweepFile) -> str:
    """The sweep that was measured, as a sweep file has it."""
    found = file.model_dump(exclude_none=True, exclude_unset=True)
    return yaml.safe_dump(found, sort_keys=False, width=120, default_flow_style=None)


def _words(flag: str, words: Sequence[str] | None, valid: Iterable[str]) -> Sequence[str]:
    options = list(valid)
    for word in words or ():
        if word not in options:
            raise UserError(one_of(flag, word, options))
    return options if words is None else words


def _counts(flag: str, text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and 0 < int(part[:12]) < LARGEST for part in parts):
        raise UserError(f"{flag}: {short(text)} is no count. Give whole numbers above 0, joined by commas.")
    return tuple(int(part) for part in parts)
