"""DoRA's kernel cases, in the interpreter; and that a fault planted before a kernel is caught by them."""

from __future__ import annotations

import pytest
import torch

from kernels.runtime import launch
from tests.kernels.dora_cases import *  # noqa: F403
from tests.kernels.dora_cases import gate
from tests.kernels.kernel_correctness import LoraCase


def fewer(axis: int):
    def change(run, _: dict) -> None:
        assert run.grid[axis] > 1
        run.grid = tuple(n - (i == axis) for i, n in enumerate(run.grid))

    return change


def argument(name: str, to):
    def change(_, inputs: dict) -> None:
        inputs[name] = to(inputs[name])

    return change


FAULTS = {
    "row_norms without its last rows": ("row_norms", fewer(0)),
    "row_norms without its last part": ("row_norms", fewer(1)),
    "row_norms without the scale": ("row_norms", argument("scale", lambda _: 1.0)),
    "row_norms of W alone": ("row_norms", argument("p_b", torch.zeros_like)),
    "magnitude without its last rows": ("magnitude", fewer(0)),
    "magnitude without its last columns": ("magnitude", fewer(1)),
    "bias scaled": ("magnitude", argument("p_bias", lambda bias: 1.1 * bias)),
    "dz of another magnitude": ("magnitude_gradient", argument("p_m", lambda m: m + 0.01)),
    "dm over the square": ("magnitude_gradient", argument("p_squares", torch.square)),
    "dm without its last part": ("magnitude_gradient", fewer(1)),
    "dm of another z": ("magnitude_gradient", argument("p_z", lambda z: z.roll(1, 0))),
}


# One of each kernel every time.
SOON = ("row_norms without its last part", "magnitude without its last columns", "dm of another z")


@pytest.mark.parametrize("fault", [f if f in SOON else pytest.param(f, marks=pytest.mark.slow) for f in FAULTS])
def test_planted_faults_are_caught(fault: str, monkeypatch) -> None:
    kernel, change = FAULTS[fault]
    case = LoraCase(140, 144, 40, 8, torch.float16, bias=True)

    def start(run, inputs: dict) -> None:
        if run.name == f"{kernel}_kernel":
            change(run, inputs)
        run.start(inputs)

    monkeypatch.setattr(launch, "recorder", start)
    with pytest.raises(AssertionError, match=r"error .*, at most|not finite"):
        gate(case)
    launch.forget_plans()
    monkeypatch.setattr(launch, "recorder", None)
    launch.counts.clear()
    gate(case)
