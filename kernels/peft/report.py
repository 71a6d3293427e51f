"""What accelerate did and what it left, to be read and to be printed."""

from collections.abc import Mapping
from dataclasses import dataclass

_SHOWN = 3  # names per reason; the rest is counted


@dataclass(frozen=True)
class Report:
    """accelerated: names of the layers whose next call is fused; left: name -> why PEFT's own forward runs.

    A reason that begins with 'for now' comes from the adapters' state, which every call looks at anew.
    """

    accelerated: tuple[str, ...]
    left: Mapping[str, str]

    def __str__(self) -> str:
        lines = [f"accelerated {len(self.accelerated)} of {len(self.accelerated) + len(self.left)} adapted layers"]
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.left.items():
            by_reason.setdefault(reason, []).append(name)
        if by_reason:
            lines.append("left to PEFT:")
        for reason, names in sorted(by_reason.items(), key=lambda item: -len(item[1])):
            more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
            lines.append(f"  {len(names)} x {reason}: {', '.join(names[:_SHOWN])}{more}")
        return "\n".join(lines)

    __repr__ = __str__
