"""A case: one thing to measure, as a point on the axes of design.md's words."""

import hashlib
import json
from dataclasses import asdict, dataclass

from bench.case.shapes import ModelShape, Projection, model_shape, square, trainable_blocks


@dataclass(frozen=True)
class Case:
    """One point on the axes. None where an axis does not apply (rank under full fine-tuning); an empty cell then."""

    level: str
    model: str | None  # None for layers that belong to no model (square-1024)
    layer: str | None  # only at level linear
    method: str
    impl: str
    trainable_layers: str
    rank: int | None
    alpha: float | None
    dropout: float | None  # of the adapter
    targets: str | None  # all-linear, or names joined by commas
    adapter_dtype: str | None
    precision: str
    batch: int
    seq: int
    l2: str | None
    accumulation: int | None = None  # micro-steps whose gradients add up before an optimizer step; None for one

    @property
    def case_id(self) -> str:
        """12 hex digits over the axes: the same case has the same id in every run."""
        axes = asdict(self)
        if self.accumulation is None:
            del axes["accumulation"]  # ids of cases without it are as they were before there was such an axis
        return hashlib.sha256(json.dumps(axes, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def tokens(self) -> int:
        return self.batch * self.seq

    @property
    def micro_steps(self) -> int:
        """Forward and backward passes to an optimizer step."""
        return self.accumulation or 1

    @property
    def scale(self) -> float:
        """s = alpha / rank; 1 under full fine-tuning."""
        return 1.0 if self.rank is None or self.alpha is None else self.alpha / self.rank

    @property
    def shape(self) -> ModelShape | None:
        return None if self.model is None else model_shape(self.model)

    @property
    def projections(self) -> tuple[Projection, ...]:
        """The layer under test at level linear, or the siblings of a group, which read the same x."""
        assert self.layer is not None, "only level linear has a layer"
        if self.shape is None:
            found = square(self.layer)
            assert found is not None
            return (found,)
        return self.shape.layer(self.layer)

    @property
    def linear_layers(self) -> dict[str, Projection]:
        """The projections at level linear by their names in what is built: layer, or layer.q_proj and its siblings.

        Empty at other levels.
        """
        found = self.projections if self.level == "linear" else ()
        if len(found) == 1:
            return {"layer": found[0]}
        return {f"layer.{p.name.rpartition('.')[2]}": p for p in found}

    @property
    def blocks(self) -> int:
        """How many decoder blocks the case builds: one at level block, all at level model, none at linear."""
        if self.level == "model":
            assert self.shape is not None
            return self.shape.num_layers
        return 1 if self.level == "block" else 0

    @property
    def target_projections(self) -> list[Projection]:
        """The layers of one block that the method adapts, in the model's order."""
        if self.level == "linear":
            return list(self.projections)
        assert self.shape is not None
        wanted = (self.targets or "all-linear").split(",")
        names = {p.name for t in wanted for p in self.shape.match(t)}
        return [p for p in self.shape.projections if p.name in names]

    @property
    def trainable_params(self) -> int:
        """Trained values by closed form: LoRA r (K + N), PaCA r N for each adapted layer, full all of them."""
        if self.method == "full":
            if self.level == "linear":
                return sum(p.params for p in self.projections)
            assert self.shape is not None
            whole = self.level == "model" and self.trainable_layers == "all"
            blocks = trainable_blocks(self.trainable_layers, self.blocks)
            return blocks * self.shape.block_params + (self.shape.outside_params if whole else 0)
        assert self.rank is not None
        wide = {"lora": lambda p: p.in_features + p.out_features, "paca": lambda p: p.out_features}[self.method]
        blocks = 1 if self.level == "linear" else trainable_blocks(self.trainable_layers, self.blocks)
        return blocks * self.rank * sum(wide(p) for p in self.target_projections)

    def axes(self) -> dict[str, object]:
        return asdict(self)

    def describe(self) -> str:
        """A short name for people: 'tinyllama lora/eager r8 4x512 forward ...' without the pass."""
        where = " ".join(x for x in (self.model, self.layer) if x)
        rank = "" if self.rank is None else f" r{self.rank}"
        upper = "" if self.trainable_layers == "all" else f" {self.trainable_layers}"
        times = "" if self.accumulation is None else f" {self.accumulation} times"
        return f"{where} {self.method}/{self.impl}{rank}{upper} {self.precision} {self.batch}x{self.seq}{times}"
