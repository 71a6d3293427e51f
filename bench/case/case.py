"""A case: one thing to measure, as a point on the axes. Its fields are the schema of sweep files, rows and tables."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property, lru_cache
from typing import Any

from bench.case import schema
from bench.case.names import short_name
from bench.case.schema import Axis, axis
from bench.case.shapes import LAYER_WORDS, ModelShape, Projection, lisa_stages, model_shape, square

LARGEST = 2**31  # beyond, no tensor has such a dimension, and memory sums overflow


def _joined(value: Any) -> Any:
    """A list of names is one value: they stand joined by commas, as in rows.csv."""
    return ",".join(value) if isinstance(value, list) and all(isinstance(n, str) for n in value) else value


def _counted(value: Any) -> Any:
    """A plain count of top blocks is meant as the word for it."""
    return str(value) if type(value) is int else value


@dataclass(frozen=True)
class Case:
    """One point on the axes. None where an axis does not apply (rank under full fine-tuning); an empty cell then."""

    level: str = axis("level", "what is timed: one linear layer, one decoder block, or the model", valid=schema.LEVELS)
    model: str | None = axis(
        "model", "a name of models.yaml, the path of a config.json, or a Hub id; empty for layers of no model"
    )
    layer: str | None = axis("layer", "at level linear: a projection, a group of siblings, or square-N")
    method: str = axis("method", "what trains", trains=True, compared=False)
    impl: str = axis("impl", "how the method is computed", trains=True, compared=False)
    trainable_layers: str = axis("trainable layers", LAYER_WORDS, trains=True, read=_counted)
    rank: int | None = axis(
        "rank", "of the adapter; under PaCA the number of columns", above=0, below=LARGEST, trains=True, compared=False
    )
    alpha: float | None = axis(
        "alpha", "scale = alpha / rank, but see scaling", above=0, below=1e6, trains=True, compared=False
    )
    dropout: float | None = axis(
        "dropout", "of the adapter; the model's own is model_dropout", least=0, below=1, trains=True, compared=False
    )
    targets: str | None = axis(
        "targets", "all-linear, or names of layers", trains=True, compared=False, listed=False, read=_joined
    )
    adapter_dtype: str | None = axis(
        "adapter dtype",
        "of A and B, or of the live columns",
        valid=schema.DTYPES,
        trains=True,
        compared=False,
        listed=False,
    )
    precision: str = axis("precision", "of weights and arithmetic; amp-*: autocast over fp32", valid=schema.PRECISIONS)
    batch: int = axis("batch", "sequences", above=0, below=LARGEST)
    seq: int = axis("length", "tokens in a sequence", above=0, below=LARGEST)
    accumulation: int | None = axis(
        "accumulation", "micro-steps before an optimizer step; empty for one",
        default=None, above=0, below=LARGEST, since=2,
    )  # fmt: skip
    scaling: str | None = axis(
        "scaling", "of the branch: empty for alpha / rank; rslora: alpha / sqrt(rank)",
        default=None, usual="standard", valid=schema.SCALINGS, trains=True, compared=False, since=3,
    )  # fmt: skip
    gradient_checkpointing: str | None = axis(
        "checkpointing", "what backward computes again: empty for nothing; full: every block; selective: what is cheap",
        default=None, usual="none", valid=schema.CHECKPOINTING,
        trains=True, compared=False, any_method=True, since=3,
    )  # fmt: skip
    optimizer: str | None = axis(
        "optimizer", "of pass step: empty for torch's fused AdamW",
        default=None, usual="adamw", valid=schema.OPTIMIZERS,
        trains=True, compared=False, any_method=True, since=3,
    )  # fmt: skip
    compile: str | None = axis(
        "compile", "the mode of torch.compile; empty for eager execution",
        default=None, usual="none", valid=schema.COMPILE_MODES,
        trains=True, compared=False, any_method=True, since=3,
    )  # fmt: skip
    l2: str | None = axis(
        "L2", "state of the L2 cache before a sample; empty on a CPU", default=None, valid=schema.L2_STATES
    )

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, name) for name in AXES))

    def __hash__(self) -> int:
        """Worked out once: cases are the keys of every look-up of a report."""
        return self._hash

    def __getstate__(self) -> dict[str, Any]:
        """Without the hash, which holds in this process alone."""
        return {name: value for name, value in self.__dict__.items() if name != "_hash"}

    @cached_property
    def case_id(self) -> str:
        """12 hex digits over the axes: the same case has the same id in every run."""
        axes = {name: value for name, value in asdict(self).items() if AXES[name].since == 1 or value is not None}
        return hashlib.sha256(json.dumps(axes, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def comparison(self) -> tuple[object, ...]:
        """The axes that two cases must share for the ratio of their times to mean anything."""
        return tuple(getattr(self, name) for name, axis in AXES.items() if axis.compared)

    @property
    def alike(self) -> tuple[object, ...]:
        """The axes that a comparison is measured at: all but those that say how a case trains."""
        return tuple(getattr(self, name) for name, axis in AXES.items() if not axis.trains)

    @property
    def tokens(self) -> int:
        return self.batch * self.seq

    @property
    def size(self) -> tuple[int, int]:
        """(batch, length)."""
        return self.batch, self.seq

    @property
    def micro_steps(self) -> int:
        """Forward and backward passes to an optimizer step."""
        return self.accumulation or 1

    @property
    def scale(self) -> float:
        """s = alpha / rank, or alpha / sqrt(rank) of rsLoRA (Kalajdzievski, 2023); 1 where there is neither."""
        if self.rank is None or self.alpha is None:
            return 1.0
        return self.alpha / (self.rank**0.5 if self.scaling == "rslora" else self.rank)

    @property
    def compiles(self) -> bool:
        """Whether torch.compile is at work: the first call may take minutes."""
        return self.compile is not None

    @property
    def makes_graphs(self) -> bool:
        """Whether torch.compile makes CUDA graphs of its own, as it does in these modes."""
        return self.compile in ("reduce-overhead", "max-autotune")

    @property
    def shape(self) -> ModelShape | None:
        return None if self.model is None else model_shape(self.model)

    @property
    def model_name(self) -> str | None:
        """The model as people read it."""
        return None if self.model is None else short_name(self.model)

    @property
    def subject(self) -> str:
        """What is run: the model, and at level linear its layer."""
        return " ".join(part for part in (self.model_name, self.layer) if part) or "unnamed"

    @property
    def projections(self) -> tuple[Projection, ...]:
        """The layer under test at level linear, or the siblings of a group, which read the same x."""
        assert self.layer is not None, "only level linear has a layer"
        if self.shape is None:
            alone = square(self.layer)
            assert alone is not None
            return (alone,)
        return self.shape.layer(self.layer)

    @property
    def linear_layers(self) -> dict[str, Projection]:
        """The projections at level linear by their names in what is built: layer, or layer.q_proj and its siblings.

        Empty at other levels.
        """
        projections = self.projections if self.level == "linear" else ()
        if len(projections) == 1:
            return {"layer": projections[0]}
        return {f"layer.{p.name.rpartition('.')[2]}": p for p in projections}

    @property
    def blocks(self) -> int:
        """How many decoder blocks the case builds: one at level block, all at level model, none at linear."""
        if self.level == "model":
            assert self.shape is not None
            return self.shape.num_layers
        return 1 if self.level == "block" else 0

    @property
    def stages(self) -> tuple[tuple[int, ...], ...]:
        """The sets of blocks that train one after the other: at level model those of trainable_layers, one but for
        lisa-G; the only block at level block; an empty one at level linear."""
        return lisa_stages(self.trainable_layers, self.blocks) if self.blocks else ((),)

    @property
    def adapted(self) -> frozenset[int]:
        """The blocks that train in some stage, and so carry an adapter in all; none at level linear."""
        return frozenset(i for stage in self.stages for i in stage)

    @property
    def trained_at_a_time(self) -> int:
        """How many blocks train at a time; at level linear the layer stands for one."""
        return len(self.stages[0]) or 1

    @property
    def target_projections(self) -> list[Projection]:
        """The layers of one block that the method adapts, in the model's order."""
        if self.level == "linear":
            return list(self.projections)
        assert self.shape is not None
        wanted = (self.targets or "all-linear").split(",")
        names = {p.name for t in wanted for p in self.shape.match(t)}
        return [p for p in self.shape.projections if p.name in names]

    def axes(self) -> dict[str, object]:
        return asdict(self)

    @property
    def training(self) -> str:
        """How it trains, for people: 'lora/eager r8 upper-1/2'."""
        rank = "" if self.rank is None else f" r{self.rank}"
        layers = (
            f" top-{self.trainable_layers}" if str(self.trainable_layers).isdigit() else f" {self.trainable_layers}"
        )
        upper = "" if self.trainable_layers == "all" else layers
        return f"{self.method}/{self.impl}{rank}{upper}{self.options}"

    @property
    def plainness(self) -> tuple[int, bool, str]:
        """The least is the plainest of a method's cases: few options, impl eager; of two alike always the same."""
        return sum(getattr(self, name) is not None for name in OPTIONS), self.impl != "eager", self.options

    @property
    def has_options(self) -> bool:
        """Whether something that goes with every method is not as usual: checkpointing, optimizer, compiler."""
        return self.plainness[0] > 0

    @property
    def plain(self) -> "Case":
        """The same case without options."""
        usual: dict[str, Any] = dict.fromkeys(OPTIONS)
        return replace(self, **usual)

    @property
    def options(self) -> str:
        """What is not as usual of the axes that have a usual word: ' rslora checkpointing-full'."""
        words = {a: getattr(self, a) for a, axis in AXES.items() if axis.usual and getattr(self, a) is not None}
        return "".join(f" {w}" if a in ("scaling", "optimizer") else f" {AXES[a].label}-{w}" for a, w in words.items())

    @property
    def conditions(self) -> str:
        """Under which it trains: 'bf16 4x512 4 times'."""
        times = "" if self.accumulation is None else f" {self.accumulation} times"
        return f"{self.precision} {self.batch}x{self.seq}{times}"

    def describe(self) -> str:
        """A short name for people: 'tinyllama lora/eager r8 bf16 4x512', without the pass."""
        where = "" if self.subject == "unnamed" else self.subject
        return f"{where} {self.training} {self.conditions}"


AXES: dict[str, Axis] = {f.name: f.metadata["axis"] for f in fields(Case)}  # in the order of rows and sweep files
OPTIONS = tuple(name for name, axis in AXES.items() if axis.any_method)  # that go with every method
TYPES: dict[str, type] = {
    f.name: next(t for t in (int, float, str) if t.__name__ in str(f.type)) for f in fields(Case)
}  # of a value that is not None


def read_case(row: Mapping[str, Any]) -> Case:
    """The case of a row of any age, from JSON or CSV: an absent axis is empty, one that every case has is 'unknown'
    or 0. Nothing is refused: whoever draws a table shows what is there."""
    return _case(*map(row.get, TYPES))


@lru_cache(2**14, typed=True)  # a case has many rows
def _case(*cells: Any) -> Case:
    values: dict[str, Any] = {name: _value(c, kind) for c, (name, kind) in zip(cells, TYPES.items(), strict=True)}
    for name in ("level", "method", "impl", "precision"):
        values[name] = values[name] or "unknown"
    values["trainable_layers"] = values["trainable_layers"] or "all"
    return Case(**values | {name: values[name] or 0 for name in ("batch", "seq")})


def _value(value: Any, kind: type) -> Any:
    """A cell as `kind`; None for an empty one and for one that is no such value."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return None
    if kind is str:
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return kind(number) if math.isfinite(number) else None
