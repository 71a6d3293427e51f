"""Triton's launcher in C, called directly.

A compiled kernel's `run` is a function of Python that hands its arguments, and what it knows of the kernel, to one
written in C: 1.0 to 1.2 us a launch on a server CPU on which F.linear takes 4.9. All that it adds is the same at every
call, so it is asked once.
"""

from collections.abc import Callable
from copy import copy
from typing import Any, NamedTuple


class Straight(NamedTuple):
    """launch(*head, stream, *middle, *arguments) is what the compiled kernel's run does with these; where `nested`, it
    is launch(*head, stream, *middle, arguments)."""

    launch: Any
    head: tuple[Any, ...]
    middle: tuple[Any, ...]
    nested: bool


def straight(run: Any, grid: tuple[int, int, int], rest: tuple[Any, ...], arguments: tuple[Any, ...]) -> Straight:
    """What run(*grid, stream, *rest, *arguments) calls, and with what.

    True of triton 3.6.0 (flat) and 3.7.1 (nested). Where run does otherwise with these arguments, or adds what it did
    not have before, such as scratch memory of this one call, it is what is called.
    """
    stream = object()
    itself = Straight(run, grid, rest, False)
    if any(getattr(run, f"{kind}_scratch_size", 1) for kind in ("global", "profile")):
        return itself  # an allocator would be asked for it, which takes no such stream
    try:
        handed = handed_by(run, (*grid, stream, *rest, *arguments))
        known = [None, *grid, *rest, *vars(run).values()]
    except (TypeError, AttributeError):
        return itself
    if sum(given is stream for given in handed) != 1:
        return itself
    place = next(i for i, given in enumerate(handed) if given is stream)
    head, behind = handed[:place], handed[place + 1 :]
    nested = len(behind) > 0 and _same(behind[-1], arguments)
    ours = len(behind) - (1 if nested else len(arguments))
    if not nested and not _same(behind[ours:], arguments):
        return itself
    middle = behind[:ours]
    if not all(any(given is value for value in known) for given in (*head, *middle)):
        return itself
    return Straight(run.launch, tuple(head), tuple(middle), nested)


def handed_by(run: Any, call: tuple[Any, ...], before: Callable[[Any], Any] = lambda launch: launch) -> list[Any]:
    """What run, called so, hands to its `launch`, which launches nothing here; before: what stands between the two."""
    handed: list[Any] = []
    noting = copy(run)
    noting.launch = before(lambda *given: handed.extend(given))
    noting(*call)
    return handed


def _same(some: Any, others: tuple[Any, ...]) -> bool:
    return (
        isinstance(some, list | tuple)
        and len(some) == len(others)
        and all(one is other for one, other in zip(some, others, strict=True))
    )
