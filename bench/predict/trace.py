"""The operators of a case: traced once for a state of the code, then kept on disk; and few blocks stand for many.

The blocks of a decoder are alike. So models of one block and of two say what each further block adds, at a thirtieth of
the time that the whole model takes.
"""

import atexit
import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt, TypeAdapter, ValidationError

from bench.case import Case
from bench.case.shapes import LLAMA_LIKE
from bench.errors import UserError
from bench.files import cache_folder, replace_file
from bench.predict.ops import Op, Trace
from bench.reading import read_json
from bench.record.environment import source_hash, version

Ops = tuple[Op, ...]

# Architectures all of whose blocks are alike; of others the whole model is traced.
_ALIKE = ("gpt2", *LLAMA_LIKE)
_COUNTS = ("n_layer", "n_layers", "num_layers", "num_hidden_layers")
_PACKAGES = ("torch", "transformers", "peft", "triton")
_PHASES: TypeAdapter[dict[str, list[int]]] = TypeAdapter(dict[str, list[NonNegativeInt]])
_OPS: TypeAdapter[list[Op]] = TypeAdapter(list[Op])


def trace(case: Case, on_gpu: bool = True) -> Trace:
    """The operators of a micro-step of a case, and of what follows the last of a step.

    on_gpu: as a GPU runs it; else as a CPU. Raises ValueError where the case cannot be built, and UserError where it
    runs what no trace can see.
    """
    folder = cache_folder("traces")
    path = None if folder is None else folder / f"{_key(case, on_gpu)}.json"
    if path is not None and (found := _read(path)) is not None:
        return found
    found = _traced(case, on_gpu)
    if path is not None:
        with suppress(OSError):  # a full disk: it is traced again next time
            replace_file(path, _written(found))
    return found


def _key(case: Case, on_gpu: bool) -> str:
    """Of all that a trace depends on."""
    config = None if case.shape is None else dict(case.shape.config) | {"layers": case.shape.num_layers}
    of = [case.axes(), config, on_gpu, _state()]
    return hashlib.sha256(json.dumps(of, sort_keys=True, default=str).encode()).hexdigest()[:24]


@cache
def _state() -> list[str | None]:
    """Of the code and of the packages that it calls."""
    return [source_hash(), *map(version, _PACKAGES)]


def _read(path: Path) -> Trace | None:
    """None for a file that is not there or that is none of ours: it is made anew."""
    try:
        found = read_json(path)
        ops = _OPS.validate_python(found["ops"])
        phases = _PHASES.validate_python(found["phases"])
        return Trace({name: tuple(ops[i] for i in places) for name, places in phases.items()})
    except (UserError, ValidationError, KeyError, TypeError, IndexError):
        return None


def _written(trace: Trace) -> str:
    places: dict[Op, int] = {}
    phases = {name: [places.setdefault(op, len(places)) for op in ops] for name, ops in trace.phases.items()}
    return json.dumps({"ops": [asdict(op) for op in places], "phases": phases})


def _traced(case: Case, on_gpu: bool) -> Trace:
    from bench.predict.whole import trace_whole  # imports torch, which a trace from disk does without

    def whole(model: Case) -> Trace:
        return trace_whole(model, on_gpu)

    if case.level != "model" or case.shape is None or case.shape.model_type not in _ALIKE:
        return whole(case)
    if len(set(case.shape.config.get("layer_types") or [""])) > 1:
        return whole(case)
    if len(case.stages) > 1:
        return whole(case)  # which says that it cannot be
    (trained,) = case.stages
    between = case.blocks - trained[0] - len(trained)
    return _from_few(whole, lambda *few: _few(case, *few), trained[0], between, len(trained)) or whole(case)


@cache
def _configs() -> Path:
    """A folder for as long as this process lives: of a config at the same path transformers is asked once."""
    folder = tempfile.mkdtemp(prefix="lorabench-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _few(case: Case, frozen: int, between: int, trained: int) -> Case:
    """The case of a model with so many blocks: frozen ones below, and with one between them two that train, else such
    as train alone."""
    assert case.shape is not None
    config = {"model_type": case.shape.model_type, **case.shape.config}
    names = [name for name in _COUNTS if name in config] or [
        "n_layer" if case.shape.model_type == "gpt2" else _COUNTS[-1]
    ]
    blocks = frozen + between + trained
    config |= dict.fromkeys(names, blocks)
    if config.get("layer_types"):
        config["layer_types"] = config["layer_types"][:blocks]
    text = json.dumps(config, sort_keys=True)
    path = _configs() / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    path.write_text(text, encoding="utf-8")
    layers = case.trainable_layers if case.trainable_layers == "all" else "every-2nd" if between else str(trained)
    return replace(case, model=str(path), trainable_layers=layers)


def _from_few(
    whole: Callable[[Case], Trace], few: Callable[[int, int, int], Case], frozen: int, between: int, trained: int
) -> Trace | None:
    """The trace of so many blocks from those of one and two trained ones, of a frozen one below and of one between two.
    None where there is nothing to gain, or where a block changes more than it adds."""
    if frozen + between + trained <= 3:
        return None
    one, two = whole(few(0, 0, 1)), whole(few(0, 0, 2))
    below = whole(few(1, 0, 1)) if frozen else one
    inside = whole(few(0, 1, 2)) if between else two
    phases = {}
    for name in one.phases:
        more, less, inner = (t.phases.get(name, ()) for t in (two, below, inside))
        found = _more(one.phases[name], more, less, inner, trained, frozen, between)
        if found is None:
            return None
        phases[name] = found
    return Trace(phases)


def _more(one: Ops, two: Ops, below: Ops, inside: Ops, trained: int, frozen: int, between: int) -> Ops | None:
    """One phase of a model with so many blocks."""
    if len({tuple(op.name for op in ops) for ops in (one, two, below, inside)}) == 1:  # one operator for all blocks
        return tuple(_line(*ops, trained, frozen, between) for ops in zip(one, two, below, inside, strict=True))
    of_trained, of_frozen, of_inner = _added(one, two), _added(one, below), _added(two, inside)
    if of_trained is None or of_frozen is None or of_inner is None:
        return None
    (place, more), (_, less), (_, inner) = of_trained, of_frozen, of_inner
    return one[:place] + less * frozen + inner * between + more * (trained - 1) + one[place:]


def _line(one: Op, two: Op, below: Op, inside: Op, trained: int, frozen: int, between: int) -> Op:
    values: dict[str, Any] = {}
    for name in ("bytes", "flops"):
        a, b, c, d = (getattr(op, name) for op in (one, two, below, inside))
        values[name] = a + (trained - 1) * (b - a) + frozen * (c - a) + between * (d - b)
    return replace(one, **values)


def _added(few: Ops, more: Ops) -> tuple[int, Ops] | None:
    """What `more` has beyond `few`, in order, and where in `few` it begins. None where `few` is no part of it."""
    left = Counter(few)
    added: list[Op] = []
    place = len(few)
    for i, op in enumerate(more):
        if left[op] > 0:
            left[op] -= 1
        else:
            place = place if added else i
            added.append(op)
    return None if left.total() else (place, tuple(added))
