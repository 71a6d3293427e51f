"""What was found out about one architecture, as it stands in the table and in the JSON file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SERVED, REFUSED, WRONG, NOT_BUILT = "served", "refused", "wrong", "not built"


@dataclass(frozen=True)
class Accelerate:
    """fused of adapted layers run the fused call; equal: outputs and gradients are PEFT's, and restore undoes it.

    None where nothing could be compared: reason says why. left: reason -> number of layers left to PEFT.
    """

    fused: int = 0
    adapted: int = 0
    reached: int = 0
    equal: bool | None = None
    left: Mapping[str, int] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class Paca:
    """works: every check of trial_paca.py held. None where paca() refused: reason says why.

    left: reason -> number of linear layers of the blocks that it left as they are.
    """

    layers: int = 0
    reached: int = 0
    works: bool | None = None
    left: Mapping[str, int] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class Row:
    """One architecture. reason is that of an architecture that is not built here, or of a process that died."""

    arch: str
    model: str = ""
    inputs: tuple[str, ...] = ()
    accelerate: Accelerate | None = None
    paca: Paca | None = None
    reason: str = ""
    died: bool = False
    seconds: float = 0.0

    @property
    def status(self) -> str:
        """served: both work. refused: one of them says why not. wrong: one of them is at fault. Or not built."""
        if (
            self.died
            or (self.accelerate and self.accelerate.equal is False)
            or (self.paca and self.paca.works is False)
        ):
            return WRONG
        if self.accelerate is None or self.paca is None:
            return NOT_BUILT
        return SERVED if self.accelerate.equal and self.accelerate.fused and self.paca.works else REFUSED

    def as_json(self) -> dict[str, Any]:
        """The fields and the status, for a file."""
        return {**asdict(self), "status": self.status}
