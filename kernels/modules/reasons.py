"""Layers that were left aside, with why: grouped by reason, to be read."""

from collections.abc import Mapping

SHOWN = 3  # names per reason; the rest is counted


def some(names: list[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def by_reason(left: Mapping[str, str]) -> list[str]:
    """A line for each reason, the commonest first: '2 x quantised: layers.0.q_proj, layers.1.q_proj'."""
    groups: dict[str, list[str]] = {}
    for name, reason in left.items():
        groups.setdefault(reason, []).append(name)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    return [f"{len(names)} x {reason}: {some(names)}" for reason, names in ordered]
