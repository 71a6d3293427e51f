"""What `predict` is asked for, checked: boards, cases, clocks and the cost of the host."""

from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from bench.case.names import short_name
from bench.case.shapes import known_name
from bench.errors import UserError, one_of, short
from bench.predict.boards import Board, board, boards
from bench.predict.predicted import Host
from bench.sweeps.expand import Plan, make_plan
from bench.sweeps.of_model import SWEEP, ModelRequest, model_plan, model_request

CLOCKS = ("graph", "eager")
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
        return " ".join([short_name(known_name(self.model) or self.model), *filter(None, [self.sweep]), *sizes])

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
    _asked(request)


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
    asked = _asked(request)
    if asked is None:
        plan = make_plan(request.sweep or SWEEP, request.on_cpu, request.where)
    else:
        plan = model_plan(asked, request.on_cpu, request.where)
    if not plan.cases:
        raise UserError(f"--where {' '.join(request.where)}: no case is left to predict.")
    return plan


def _asked(request: Request) -> ModelRequest | None:
    options = {name: getattr(request, name) for name in ("batch", "seq", "method", "impl", "rank", "precision")}
    return model_request(request.model, request.sweep, **options)
