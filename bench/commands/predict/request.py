"""What `predict` is asked for, checked: boards, cases, clocks and the cost of the host."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from bench.case.case import LARGEST
from bench.case.schema import BASELINE, PRECISIONS
from bench.case.shapes import model_shape
from bench.errors import UserError, one_of, short
from bench.methods.registry import methods
from bench.predict.boards import Board, board, boards
from bench.predict.predicted import Host
from bench.sweeps.expand import Plan, make_plan
from bench.sweeps.file import SweepFile

CLOCKS = ("graph", "eager")
SWEEP = "table1"
MOST_US = 10_000.0  # of an operator on a host: a hundred times what the slowest known one takes


@dataclass(frozen=True)
class Request:
    """The options as given; None or empty where one was not."""

    gpu: str
    sweep: str | None = None
    model: str | None = None
    batch: str | None = None
    seq: str | None = None
    method: str | None = None
    impl: str | None = None
    rank: int | None = None
    precision: str | None = None
    where: tuple[str, ...] = ()
    out: Path | None = None
    host_us: str | None = None
    clock: str | None = None
    fresh: bool = False

    @property
    def on_cpu(self) -> bool:
        return self.gpu == "cpu"

    @property
    def name(self) -> str:
        """Of what is predicted: the sweep, or the model and its sizes."""
        if self.model is None:
            return self.sweep or SWEEP
        sizes = [f"{label} {value}" for label, value in (("batch", self.batch), ("length", self.seq)) if value]
        return " ".join([self.model, *sizes])

    @property
    def clocks(self) -> tuple[str, ...]:
        """Graph before eager, which needs the cost of a host."""
        return CLOCKS if self.clock is None else (self.clock,)


def boards_of(request: Request) -> list[Board]:
    """The boards of --gpu. Raises UserError for one that is not known."""
    found = {b.key: b for word in request.gpu.split(",") for b in [board(word.strip())]}
    return list(found.values())


def namesakes(one: Board) -> list[Board]:
    """The other boards whose key begins with this one's: `bench list` may mean one of those."""
    return [b for b in boards().values() if b.key.startswith(f"{one.key}-")]


def check_options(request: Request) -> None:
    """Raises UserError for options that contradict each other, and for words that are none."""
    if request.clock not in (None, *CLOCKS):
        raise UserError(one_of("--clock", request.clock, CLOCKS))
    if "cpu" in request.gpu.split(",") and not request.on_cpu:
        raise UserError(f"--gpu {request.gpu}: cpu stands alone, since its cases are smaller ones than a GPU's.")
    for flag, value in (("--host-us", request.host_us), ("--clock", request.clock)):
        if request.on_cpu and value is not None:
            raise UserError(f"{flag} {value}: of --gpu cpu there is the clock cpu-time alone. Leave {flag} out.")
    if request.clock == "graph" and request.host_us is not None:
        raise UserError(f"--host-us {request.host_us}: --clock graph knows no host. Give one of the two.")
    given = [f"--{name}" for name in ("batch", "seq", "method", "impl", "rank", "precision") if getattr(request, name)]
    if request.model is None and given:
        raise UserError(f"{given[0]}: this goes with --model. Of a sweep, --where narrows the cases.")
    if request.model is not None and request.sweep is not None:
        raise UserError(f"--model {request.model}: give a sweep ({request.sweep}) or a model, not both.")


def given_host(text: str) -> Host:
    """The host of --host-us: '12.5', or '12.5,14' for forward and backward. Raises UserError."""
    parts = text.split(",")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if len(values) not in (1, 2) or not all(isfinite(v) and 0 < v <= MOST_US for v in values):
        raise UserError(
            f"--host-us: {short(text)} is no cost of an operator. Give microseconds above 0 and at most {MOST_US:,.0f}:"
            " one number, or forward,backward."
        )
    return Host(values[0], values[-1], "given by --host-us")


def plan_of(request: Request) -> Plan:
    """The cases. Raises UserError where there are none."""
    if request.model is None:
        plan = make_plan(request.sweep or SWEEP, request.on_cpu, request.where)
    else:
        plan = make_plan(SWEEP, request.on_cpu, request.where, _with_model(request))
    if not plan.cases:
        raise UserError(f"--where {' '.join(request.where)}: no case is left to predict.")
    return plan


def _with_model(request: Request) -> Callable[[SweepFile], SweepFile]:
    """What makes Table 1's sweep one of the model, sizes and methods asked for; Full-FT comes with each."""
    assert request.model is not None
    try:
        shape = model_shape(request.model)
    except UserError as e:
        raise UserError(f"--model: {str(e).removeprefix('model: ')}") from None
    sizes = {axis: _counts(f"--{axis}", text) for axis in ("batch", "seq") if (text := getattr(request, axis))}
    for length in sizes.get("seq", []):
        if length > shape.max_positions:
            raise UserError(f"--seq: {length} is longer than {request.model} allows. Up to {shape.max_positions}.")
    axes: dict[str, Sequence[object]] = {"model": [request.model], **sizes}
    if request.precision is not None:
        axes["precision"] = _words("--precision", request.precision, PRECISIONS)

    def change(file: SweepFile) -> SweepFile:
        named = list(dict.fromkeys(entry.method[0] for entry in file.methods))
        wanted = set(named if request.method is None else _words("--method", request.method, named)) | {BASELINE}
        known = {m: methods()[m].impls for m in wanted - {BASELINE}}
        impls = request.impl and _words("--impl", request.impl, dict.fromkeys(i for m in known.values() for i in m))
        entries = []
        for entry in file.methods:
            method = entry.method[0]
            more: dict[str, object] = {"rank": [request.rank]} if request.rank and entry.rank else {}
            if impls and method != BASELINE:
                more["impl"] = [i for i in impls if i in methods()[method].impls]
            if method in wanted and more.get("impl") != []:
                entries.append(entry.model_copy(update=more))
        cpu = file.cpu.model_copy(update={"axes": file.cpu.axes.model_copy(update=axes)})
        given = file.axes.model_copy(update=axes)
        return file.model_copy(update={"axes": given, "methods": entries, "cpu": cpu})

    return change


def _words(flag: str, text: str, valid: Iterable[str]) -> Sequence[str]:
    words, options = text.split(","), list(valid)
    for word in words:
        if word not in options:
            raise UserError(one_of(flag, word, options))
    return words


def _counts(flag: str, text: str) -> list[int]:
    parts = text.split(",")
    if not all(part.isascii() and part.isdigit() and 0 < int(part[:12]) < LARGEST for part in parts):
        raise UserError(f"{flag}: {short(text)} is no count. Give whole numbers above 0, joined by commas.")
    return [int(part) for part in parts]
