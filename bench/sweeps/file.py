"""What a sweep file may say: its keys, their types and values. An unknown key is an error that names key and file."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from bench.case import schema
from bench.case.shapes import is_there
from bench.errors import UserError, did_you_mean, one_of
from bench.timing.settings import MeasureSettings
from bench.yamlfile import Strict, YamlFile, read_strict

SWEEPS = Path(__file__).parent


Count = Annotated[int, Field(gt=0, lt=2**31)]  # beyond, no tensor has such a dimension, and memory sums overflow


def _listed(value: Any) -> Any:
    """One value stands for a list of one."""
    return value if isinstance(value, list) else [value]


def _targets(value: Any) -> Any:
    """A list inside the list is one value: its names joined by commas, as they stand in rows.csv."""
    return [",".join(v) if isinstance(v, list) and all(isinstance(n, str) for n in v) else v for v in _listed(value)]


def _counts(value: Any) -> Any:
    """A plain count of top blocks is meant as the word for it."""
    return [str(v) if type(v) is int else v for v in _listed(value)]


def _words(valid: tuple[str, ...]) -> Any:
    """A list of words out of a vocabulary."""

    def check(values: list[str]) -> list[str]:
        for v in values:
            if v not in valid:
                raise ValueError(one_of("", v, valid).removeprefix(": "))
        return values

    return Annotated[list[str], Field(min_length=1), BeforeValidator(_listed), AfterValidator(check)]


def _many(kind: Any, before: Any = _listed) -> Any:
    return Annotated[list[kind], Field(min_length=1), BeforeValidator(before)]


class AxesPart(Strict):
    """Values of axes: a single one or a list. Every combination is a case."""

    level: _words(schema.LEVELS) | None = None  # type: ignore[valid-type]
    model: _many(str) | None = None  # type: ignore[valid-type]
    layer: _many(str) | None = None  # type: ignore[valid-type]
    method: _words(schema.METHODS) | None = None  # type: ignore[valid-type]
    impl: _many(str) | None = None  # type: ignore[valid-type]
    trainable_layers: _many(str, _counts) | None = None  # type: ignore[valid-type]
    rank: _many(Count) | None = None  # type: ignore[valid-type]
    alpha: _many(Annotated[float, Field(gt=0, lt=1e6)]) | None = None  # type: ignore[valid-type]
    dropout: _many(Annotated[float, Field(ge=0, lt=1)]) | None = None  # type: ignore[valid-type]
    targets: _many(str, _targets) | None = None  # type: ignore[valid-type]
    adapter_dtype: _words(schema.DTYPES) | None = None  # type: ignore[valid-type]
    precision: _words(schema.PRECISIONS) | None = None  # type: ignore[valid-type]
    batch: _many(Count) | None = None  # type: ignore[valid-type]
    seq: _many(Count) | None = None  # type: ignore[valid-type]
    accumulation: _many(Count) | None = None  # type: ignore[valid-type]
    l2: _words(schema.L2_STATES) | None = None  # type: ignore[valid-type]

    def given(self) -> dict[str, list[Any]]:
        """The axes that are set, in the order of schema.AXES."""
        return {a: getattr(self, a) for a in schema.AXES if getattr(self, a) is not None}


class CpuPart(Strict):
    """What replaces the sweep's own keys on a machine without a GPU."""

    axes: AxesPart = AxesPart()
    passes: _words(schema.PASSES) | None = None  # type: ignore[valid-type]
    measure: MeasureSettings = MeasureSettings()


class SweepFile(Strict):
    """A sweep: axes and methods whose combinations are the cases, what to time, and how."""

    description: str
    axes: AxesPart
    methods: Annotated[list[AxesPart], Field(min_length=1)]
    passes: _words(schema.PASSES) = Field(default=["forward", "backward", "forward-backward"])  # type: ignore[valid-type]
    clocks: _words(("eager", "device", "graph")) = Field(default=["eager"])  # type: ignore[valid-type]
    measure: MeasureSettings = MeasureSettings()
    on_request: AxesPart = AxesPart()  # further values of axes, measured only where --where names them
    cpu: CpuPart = CpuPart()


def sweep_names() -> list[str]:
    """The sweeps that come with the suite."""
    return sorted(p.stem for p in SWEEPS.glob("*.yaml"))


def sweep_path(sweep: str) -> Path:
    """The file of a sweep given by name or by path. Raises UserError where there is none."""
    if sweep in sweep_names():
        return SWEEPS / f"{sweep}.yaml"
    path = Path(sweep)
    if is_there(path.is_file):
        return path
    names = sweep_names()
    raise UserError(f"sweep {sweep}: no such file or sweep.{did_you_mean(sweep, names)} Sweeps: {', '.join(names)}.")


def read_sweep(path: Path) -> tuple[SweepFile, YamlFile]:
    """A sweep file, checked. Raises UserError naming file, line, key, what was found and what would be valid."""
    return read_strict(path, SweepFile, "a sweep")
