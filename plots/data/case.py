"""The axes of a case, as the rows name them."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from bench.case.schema import PASSES as PASSES
from plots.data.load import number, text

METHODS = {"full": "Full-FT", "lora": "LoRA", "paca": "PaCA"}
MICRO_PASSES = ("forward", "backward", "forward-backward")  # all but the optimizer step
OWN_AXES = ("trainable_layers", "rank", "alpha", "dropout", "targets", "adapter_dtype")  # what a method sets for itself


@dataclass(frozen=True)
class Case:
    """The axes of a case as text; None where an axis does not apply."""

    level: str
    model: str | None
    layer: str | None
    method: str
    impl: str
    trainable_layers: str | None
    rank: str | None
    alpha: str | None
    dropout: str | None
    targets: str | None
    adapter_dtype: str | None
    precision: str | None
    batch: int
    seq: int
    l2: str | None
    # Micro-steps to an optimizer step; None for one. Not in repr, which seeds draws: earlier folders keep their digits.
    accumulation: str | None = field(default=None, repr=False)

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.__dataclass_fields__))

    def __hash__(self) -> int:
        """Worked out once: cases are the keys of every look-up."""
        return self._hash

    @property
    def tokens(self) -> int:
        return self.batch * self.seq

    @property
    def micro_steps(self) -> int:
        return int(number(self.accumulation) or 1)

    @property
    def shape(self) -> tuple[int, int]:
        """(batch, length)."""
        return self.batch, self.seq

    @property
    def subject(self) -> str:
        """What is run: the model, and at level linear its layer."""
        return " ".join(part for part in (self.model, self.layer) if part) or "unnamed"


def read_case(row: dict[str, Any]) -> Case:
    """The axes of a row."""
    words = {name: text(row.get(name)) for name in Case.__dataclass_fields__ if name not in ("batch", "seq")}
    for name in ("level", "method", "impl"):
        words[name] = words[name] or "unknown"
    batch, seq = (int(number(row.get(name)) or 0) for name in ("batch", "seq"))
    return Case(batch=batch, seq=seq, **words)  # type: ignore[arg-type]
