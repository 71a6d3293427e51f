"""What a sweep file may say: its keys, their types and values. An unknown key is an error that names key and file."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, create_model

from bench.case import AXES, schema
from bench.case.case import TYPES
from bench.case.clocks import CLOCKS
from bench.case.schema import Axis
from bench.errors import UserError, did_you_mean, one_of
from bench.methods.registry import methods
from bench.reading import is_there
from bench.timing.settings import MeasureSettings
from bench.yamlfile import Strict, Where, YamlFile, read_strict

SWEEPS = Path(__file__).parent


def _words(valid: Sequence[str] | Callable[[], Iterable[str]]) -> Any:
    """A list of words out of a vocabulary, or out of one that is asked for when it is needed."""

    def check(values: list[str]) -> list[str]:
        words = tuple(valid() if callable(valid) else valid)
        for v in values:
            if v not in words:
                raise ValueError(one_of("", v, words).removeprefix(": "))
        return values

    return Annotated[list[str], Field(min_length=1), BeforeValidator(_listed), AfterValidator(check)]


def _listed(value: Any) -> Any:
    """One value stands for a list of one."""
    return value if isinstance(value, list) else [value]


def _values(name: str, axis: Axis) -> Any:
    """The type of an axis in a sweep file: one value or a list of them."""
    if name == "method":
        return _words(methods)
    if axis.valid:
        return _words(axis.valid)
    bounds: dict[str, Any] = {"gt": axis.above, "ge": axis.least, "lt": axis.below}
    bounds["max_length"] = 1000 if TYPES[name] is str else None
    kind: Any = Annotated[TYPES[name], Field(**{k: v for k, v in bounds.items() if v is not None})]
    read = BeforeValidator(lambda value: [axis.read(v) for v in _listed(value)])
    return Annotated[list[kind], Field(min_length=1), read]


class AxesPart(Strict):
    """Values of axes: a single one or a list. Every combination is a case. `Axes` has a key for each axis."""

    def given(self) -> dict[str, list[Any]]:
        """The axes that are set, in their order."""
        return {a: getattr(self, a) for a in AXES if getattr(self, a) is not None}


_KEYS: dict[str, Any] = {name: (_values(name, axis) | None, None) for name, axis in AXES.items()}
Axes: Any = create_model("Axes", __base__=AxesPart, **_KEYS)


class CpuPart(Strict):
    """What replaces the sweep's own keys on a machine without a GPU."""

    axes: Axes = Axes()
    methods: list[Axes] = Field(default=[])  # further ones, measured there alone; their own axes win over those above
    passes: _words(schema.PASSES) | None = None  # type: ignore[valid-type]
    measure: MeasureSettings = MeasureSettings()


class SweepFile(Strict):
    """A sweep: axes and methods whose combinations are the cases, what to time, and how."""

    description: str = ""
    axes: Axes
    methods: Annotated[list[Axes], Field(min_length=1)]
    passes: _words(schema.PASSES) = Field(default=["forward", "backward", "forward-backward"])  # type: ignore[valid-type]
    clocks: _words([name for name, clock in CLOCKS.items() if clock.in_sweeps]) = Field(default=["eager"])  # type: ignore[valid-type]
    measure: MeasureSettings = MeasureSettings()
    on_request: Axes = Axes()  # further values of axes, measured only where --where names them
    cpu: CpuPart = CpuPart()

    def entries(self, on_cpu: bool) -> dict[Where, dict[str, list[Any]]]:
        """The axes of each entry, by its place in the file: shared ones, its own, and on a CPU those of a CPU."""
        shared, instead = self.axes.given(), self.cpu.axes.given() if on_cpu else {}
        found = {("methods", i): shared | entry.given() | instead for i, entry in enumerate(self.methods)}
        there = self.cpu.methods if on_cpu else []
        return found | {("cpu", "methods", i): shared | instead | e.given() for i, e in enumerate(there)}


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
