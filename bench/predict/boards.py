"""The boards that times are predicted for: what their makers say, and what was fitted to published timings."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from bench.devices import entry_flag, known_devices
from bench.errors import UserError, one_of
from bench.yamlfile import Strict, read_strict

# broadcast: elementwise of tensors of different sizes (a bias, a norm's weight). copy: into another layout. cast: into
# another type. random: draws random numbers, as dropout does.
MemoryKind = Literal["elementwise", "broadcast", "cast", "norm", "softmax", "reduction", "copy", "gather", "random"]
ErrorKind = Literal["gemm", "memory", "attention"]
Pass = Literal["forward", "backward"]
Source = Literal["grid", "squares", "neighbour"]
_HERE = Path(__file__).parent


class Gemm(Strict):
    """The numbers of `gemm_us` that a data sheet does not have."""

    t0_us: float  # of an empty GEMM
    e: float  # share of the data sheet's rate that the best tile reaches
    k0: float  # what a tile's beginning and end cost, in steps of K
    ebw: float  # share of the memory's bandwidth
    pen: float  # how much slower tiles are that reuse less: the exponent
    sag: float  # what a long GEMM loses to the power limit: at most this share more time


@dataclass(frozen=True)
class Board:
    """One GPU. Rates are dense, in 1e12 a second; times in microseconds; shares are of the data sheet's rate."""

    key: str  # as --gpu names it
    name: str  # as NVML does
    arch: int  # compute capability: 80 for sm_80
    sms: int
    tflops: float  # of 16-bit tensor products with fp32 accumulation
    fp32_tflops: float  # of the ordinary cores
    bandwidth_tbs: float
    l2_mib: float
    l2_tbs: float  # reading rate of the L2
    warm: float  # share of what fits into the L2 that an operator finds there
    gemm: Gemm
    shares: dict[MemoryKind, float]  # of the bandwidth, by kind of memory-bound operator
    attention: dict[Pass, float]  # share of `tflops`
    launch_us: float  # least time of a kernel in a full queue
    graph_us: float  # the same in a CUDA graph
    errors: dict[ErrorKind, tuple[float, float]]  # half widths of the 80 and 90 % intervals, of the predicted time
    fitted: Source  # whose rows the numbers of `gemm` come from: its own grid, its squares alone, its neighbour's
    sources: dict[str, str]  # of each number or group of numbers
    memory_gib: float | None = None  # as it is sold; None where that is not known

    @property
    def tf32_tflops(self) -> float:
        """Half of the 16-bit rate, on every board here."""
        return self.tflops / 2


class Sheet(Strict):
    """A data sheet that gpus.yaml does not have, in its words."""

    name: str
    sm_count: int
    bf16_tflops: float
    fp32_tflops: float
    memory_tbs: float
    memory_gib: float
    l2_mib: float
    source: str


class Given(Strict):
    """A board of boards.yaml."""

    sheet: str | Sheet  # a name in gpus.yaml
    arch: int
    neighbour: str  # whose fitted numbers stand in for its own
    l2_tbs: float
    l2_mib: float | None = None  # where gpus.yaml has the full chip's
    warm: float
    launch_us: float
    graph_us: float
    attention: dict[Pass, float]
    sources: dict[str, str]


class Fitted(Strict):
    """A board of fitted.yaml."""

    fitted: Source
    gemm: Gemm
    shares: dict[MemoryKind, float]
    errors: dict[ErrorKind, list[float]]
    sources: dict[str, str]


class GivenFile(Strict):
    """boards.yaml."""

    boards: dict[str, Given]


class FittedFile(Strict):
    """fitted.yaml, which `make fit` writes."""

    boards: dict[str, Fitted]


def board(key: str) -> Board:
    """The board of that key, or of that name as --gpu writes it (a100-sxm4-80gb).

    A key of gpus.yaml stands for the board of it that most people mean: a100 is the SXM4 with 80 GB. Raises UserError
    for any other.
    """
    known = boards()
    named = {entry_flag({"name": b.name}): b for b in known.values()}
    if found := known.get(key) or named.get(key):
        return found
    raise UserError(one_of("--gpu", key, known))


@cache
def boards() -> dict[str, Board]:
    """Every board by its key."""
    fitted = read_strict(_HERE / "fitted.yaml", FittedFile, "a file of fitted numbers")[0].boards
    return {key: assemble(key, given, fitted[key]) for key, given in given_boards().items()}


@cache
def given_boards() -> dict[str, Given]:
    """boards.yaml: what was not fitted."""
    return read_strict(_HERE / "boards.yaml", GivenFile, "a file of boards")[0].boards


def assemble(key: str, given: Given, fitted: Fitted) -> Board:
    """A board of its data sheet and of its lines in the two files."""
    sheet = given.sheet if isinstance(given.sheet, Sheet) else _in_gpus_yaml(given.sheet)
    return Board(
        key=key,
        name=sheet.name,
        arch=given.arch,
        sms=sheet.sm_count,
        tflops=sheet.bf16_tflops,
        fp32_tflops=sheet.fp32_tflops,
        bandwidth_tbs=sheet.memory_tbs,
        memory_gib=sheet.memory_gib,
        l2_mib=given.l2_mib or sheet.l2_mib,
        l2_tbs=given.l2_tbs,
        warm=given.warm,
        gemm=fitted.gemm,
        shares=fitted.shares,
        attention=given.attention,
        launch_us=given.launch_us,
        graph_us=given.graph_us,
        errors={kind: (half[0], half[1]) for kind, half in fitted.errors.items()},
        fitted=fitted.fitted,
        sources={"sheet": sheet.source, **given.sources, **fitted.sources},
    )


def _in_gpus_yaml(name: str) -> Sheet:
    entry = next(e for entries in known_devices().values() for e in entries if e["name"] == name)
    return Sheet(**{field: entry[field] for field in Sheet.model_fields})


def numbers_version() -> str:
    """8 hex digits over all that prices depend on beside the code: boards.yaml and fitted.yaml."""
    return hashlib.sha256(b"".join((_HERE / f).read_bytes() for f in ("boards.yaml", "fitted.yaml"))).hexdigest()[:8]
