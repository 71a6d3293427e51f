"""Models with random weights, made on the device they run on, ready to be timed. Importing this needs no torch."""

from typing import TYPE_CHECKING

from bench.case import Case

if TYPE_CHECKING:
    from bench.models.work import Work

__all__ = ["build"]


def build(case: Case, device: str, seed: int = 0) -> "Work":
    """The work that a case times; see bench.models.build.build."""
    from bench.models.build import build as build_work

    return build_work(case, device, seed)
