"""What accelerate did and what it left, to be read and to be printed."""

from collections.abc import Mapping
from dataclasses import dataclass

from ..modules.reasons import by_reason


@dataclass(frozen=True)
class Report:
    """accelerated: names of the layers whose next call is fused; left: name -> why PEFT's own forward runs.

    A reason that begins with 'for now' comes from the adapters' state, which every call looks at anew.
    """

    accelerated: tuple[str, ...]
    left: Mapping[str, str]

    def __str__(self) -> str:
        lines = [f"accelerated {len(self.accelerated)} of {len(self.accelerated) + len(self.left)} adapted layers"]
        if self.left:
            lines.append("left to PEFT:")
            lines += [f"  {line}" for line in by_reason(self.left)]
        return "\n".join(lines)

    __repr__ = __str__
