"""Host cost of one forward call of lora_linear and paca_linear beyond F.linear, with the launches faked.

    PYTHONPATH=. python tests/kernels/host_cost.py

Everything the host does for a GPU tensor is done, up to the driver: validation, plan, allocation, autograd, launch
arguments. The tensors are tiny CPU ones, so that neither arithmetic nor allocation of storage counts. The bound is
12 us on a machine where F.linear takes 2, that is 6 times F.linear.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from unittest.mock import patch

import torch
import torch.nn.functional as F
import triton

from kernels import lora_linear, paca_linear
from kernels.runtime import launch


@contextmanager
def faked_launches():
    """CPU tensors take the way of CUDA tensors; a kept kernel is called with its arguments and does nothing."""

    def look_up(self, inputs):
        self.compiled = (0, (), 0, lambda *_: None, triton.knobs.runtime)

    with (
        patch.object(launch, "runs_triton", lambda x: True),
        patch.object(launch, "architecture", lambda device: 90),
        patch.object(launch, "multiprocessors", lambda device: 132),
        patch.object(launch.Launch, "look_up", look_up),
        patch.object(launch, "raw_stream", lambda device: 0),
    ):
        launch.forget_plans()
        yield
        launch.forget_plans()


def microseconds(calls: dict, rounds: int = 60, repeat: int = 60) -> dict[str, float]:
    """The least of the rounds' means: what the host needs when nothing else runs. The calls take turns."""
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(repeat):
                call()
            least[name] = min(least[name], (time.perf_counter() - begin) / repeat * 1e6)
    return least


def measure() -> dict[str, float]:
    """us per call: F.linear, and each function beyond it."""
    torch.set_num_threads(1)
    x = torch.randn(1, 16, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(16, 16, dtype=torch.bfloat16)
    a = torch.randn(16, 16, dtype=torch.bfloat16, requires_grad=True)
    b = torch.randn(16, 16, dtype=torch.bfloat16, requires_grad=True)
    index = torch.arange(16)
    with faked_launches():
        calls = {
            "F.linear": lambda: F.linear(x, weight),
            "lora_linear epilogue": lambda: lora_linear(x, weight, a, b, scale=2.0, scheme="epilogue"),
            "lora_linear single_pass": lambda: lora_linear(x, weight, a, b, scale=2.0, scheme="single_pass"),
            "paca_linear": lambda: paca_linear(x, weight, b, index, scheme="gather"),
        }
        return microseconds(calls)


if __name__ == "__main__":
    cost = measure()
    unit = cost.pop("F.linear")
    print(f"F.linear {unit:.2f} us a call; beyond it:")
    for name, us in cost.items():
        print(f"  {name:24} {us - unit:6.2f} us = {(us - unit) / unit:.1f} x F.linear (bound 6 for lora_linear)")
