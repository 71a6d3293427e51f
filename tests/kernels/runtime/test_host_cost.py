"""What a kept launch costs the host, in calls of Python and C functions: a count, which no busy machine spoils.

host_cost.py prints the time: 30 to 41 us beyond F.linear's 4.2 us on an AMD EPYC, with as many calls as here.
"""

import sys
from collections.abc import Callable

import pytest
import torch

from kernels import lora_linear, paca_linear
from kernels.runtime import launch
from tests.kernels.host_cost import faked_launches

pytest.importorskip("triton")


def calls_of(call: Callable[[], object]) -> int:
    """Functions that a call enters, once everything is kept."""
    for _ in range(3):
        call()
    entered = 0

    def note(_frame: object, event: str, _argument: object) -> None:
        nonlocal entered
        entered += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return entered


@pytest.mark.skipif(launch.interpreting(), reason="the interpreter launches for itself")
def test_a_forward_enters_few_functions() -> None:
    x = torch.randn(1, 16, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(16, 16, dtype=torch.bfloat16)
    a, b = (torch.randn(16, 16, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    index = torch.arange(16)
    with faked_launches():
        found = {
            scheme: calls_of(lambda scheme=scheme: lora_linear(x, weight, a, b, scale=2.0, scheme=scheme))
            for scheme in ("epilogue", "single_pass")
        }
        found["paca"] = calls_of(lambda: paca_linear(x, weight, b, index, scheme="gather"))
    most = {"epilogue": 74, "single_pass": 64, "paca": 57}  # of the first version that kept its launches
    assert all(20 < found[name] <= most[name] for name in most), found
