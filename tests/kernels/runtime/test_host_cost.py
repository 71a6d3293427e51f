"""What a kept launch costs the host, in calls of Python and C functions: a count, which no busy machine spoils.

host_cost.py prints the time.
"""

import sys
from collections.abc import Callable

import pytest

from kernels.runtime import launch
from tests.kernels.host_cost import backwards, faked_launches, forwards

pytest.importorskip("triton")

#: By call of host_cost.py: 4 above what was reached with torch 2.13 and triton 3.7.1, for other versions.
MOST = {
    "lora_linear cublas": 37,
    "lora_linear epilogue": 37,
    "lora_linear epilogue_tma": 39,
    "lora_linear single_pass": 31,
    "lora_linear bordered": 40,
    "lora_linear torch": 33,
    "lora_linear cublas dropout": 46,
    "lora_linear epilogue dropout": 46,
    "lora_linear epilogue_tma dropout": 48,
    "lora_linear bordered dropout": 49,
    "lora_linear epilogue_tma 3-D": 39,
    "lora_linear cublas 3-D": 40,
    "paca_linear": 57,
}
MOST_BACKWARD = {
    "backward lora_linear cublas": 135,
    "backward lora_linear epilogue": 138,
    "backward lora_linear epilogue_tma": 150,
    "backward lora_linear epilogue_fused_da": 133,
    "backward paca_linear": 91,
}


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
    with faked_launches():
        found = {name: calls_of(call) for name, call in forwards().items() if name != "F.linear"}
    assert found.keys() == MOST.keys(), "a scheme without a bound"
    more = {name: (count, MOST[name]) for name, count in found.items() if not 20 < count <= MOST[name]}
    assert not more, f"calls and their bounds: {more}"


@pytest.mark.skipif(launch.interpreting(), reason="the interpreter launches for itself")
def test_backward_enters_few_functions() -> None:
    with faked_launches():
        found = {name: calls_of(call) for name, call in backwards().items() if "F.linear" not in name}
    assert found.keys() == MOST_BACKWARD.keys(), "a call without a bound"
    more = {
        name: (count, MOST_BACKWARD[name]) for name, count in found.items() if not 20 < count <= MOST_BACKWARD[name]
    }
    assert not more, f"calls and their bounds: {more}"
