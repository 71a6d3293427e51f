"""Kept launches call Triton's launcher in C directly, and Triton's own function where it does more than was seen."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kernels.paca.gather import gather_launch
from kernels.runtime import launch
from kernels.runtime.c_launcher import straight
from kernels.runtime.dispatch import Case, choose_tile
from tests.kernels.stub_driver.pretended_gpus import tensors_on

GRID, REST, ARGUMENTS = (7, 8, 9), (object(), (4, 1), None), (object(), None, 5)
Handed = Callable[..., tuple[Any, ...]]


class Run:
    """As a compiled kernel's launcher: what `way` makes of its arguments is handed to `launch`."""

    def __init__(self, way: Handed, scratch: int = 0) -> None:
        self.global_scratch_size, self.profile_scratch_size, self.pdl = scratch, 0, True
        self.way, self.seen = way, []
        self.launch = lambda *given: self.seen.append(given)

    def __call__(self, x: int, y: int, z: int, stream: Any, *rest: Any) -> None:
        if self.global_scratch_size:
            raise OverflowError("an allocator was asked for memory of no stream")
        self.launch(*self.way(self, x, y, z, stream, *rest))


def flat(run: Run, x: int, y: int, z: int, stream: Any, function: Any, *rest: Any) -> tuple[Any, ...]:
    return (x, y, z, stream, function, run.pdl, *rest)


def nested(run: Run, x: int, y: int, z: int, stream: Any, *rest: Any) -> tuple[Any, ...]:
    return (x, y, z, stream, run.pdl, *rest[:3], rest[3:])


@pytest.mark.parametrize("way", [flat, nested])
def test_the_launcher_is_handed_what_run_hands_it(way: Handed) -> None:
    run = Run(way)
    call, head, middle, is_nested = straight(run, GRID, REST, ARGUMENTS)
    assert not run.seen, "something was launched to find out"
    assert call is run.launch and is_nested == (way is nested)
    others = (object(), object(), 6)
    run(*GRID, 0x57AE0, *REST, *others)
    call(*head, 0x57AE0, *middle, *([others] if is_nested else others))
    assert run.seen[0] == run.seen[1]


@pytest.mark.parametrize(
    "run",
    [
        Run(lambda run, *given: (*given[:4], object(), *given[4:])),
        Run(lambda run, *given: (*given[:4], given[3], *given[4:])),
        Run(lambda run, *given: given[:-1]),
        Run(lambda run, *given: (id(given[3]), *given)),
        Run(lambda run, *given: (*given[:3], str(given[3]), *given[4:])),
        Run(flat, scratch=128),
        len,
    ],
    ids=["made for the call", "stream twice", "an argument less", "of the stream", "no stream", "scratch", "no class"],
)
def test_run_itself_is_called_where_it_does_more(run: Any) -> None:
    assert straight(run, GRID, REST, ARGUMENTS) == (run, GRID, REST, False)


def test_the_installed_triton_is_called_directly() -> None:
    case = Case(48, 64, 96, 8, 90, 132, False)
    kept = gather_launch(48, 8, choose_tile("gather", case, 48, 0), stride_xm=96)
    tensors = {
        "p_x": torch.zeros(48, 96), "p_index": torch.arange(8), "p_out": torch.empty(48, 8),
    }  # fmt: skip
    assert isinstance(kept, launch.Launch)
    with tensors_on(0):
        kept(**tensors)
    assert type(kept.compiled[0]).__name__ == "builtin_function_or_method"
