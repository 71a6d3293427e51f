"""Host cost of a call of lora_linear and paca_linear beyond F.linear, up to the driver.

    PYTHONPATH=. python tests/kernels/host_cost.py                  launches do nothing
    PYTHONPATH=. python tests/kernels/host_cost.py --stub-driver    Triton's launcher runs, over a stub of the driver

Everything the host does for a GPU tensor is done: validation, plan, allocation, autograd, launch arguments, the look-up
of tensor maps, which are encoded in the first call. The tensors are tiny CPU ones, so that neither arithmetic nor
allocation of storage counts; nor do denormal numbers, which launches that do nothing leave in memory. The bound is
12 us a forward on a machine where F.linear takes 2, that is 6 times F.linear; backward has none.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
import triton

from kernels import lora_linear, paca_linear
from kernels.lora import arguments
from kernels.lora.bordered_weight import bordered
from kernels.runtime import launch, tensor_maps
from kernels.runtime.schemes import FORWARD_SCHEMES
from kernels.runtime.tensor_maps import Encoder, expander
from tests.kernels.stub_driver.pretended_gpus import Generator, generators


def capturing() -> bool:
    """In the place of torch.cuda.is_current_stream_capturing."""
    return False


Calls = dict[str, Callable[[], object]]


@contextmanager
def as_on_a_gpu() -> Iterator[None]:
    """CPU tensors take the way of CUDA tensors of an sm_90, and every tensor map is found after the first call: a GPU's
    caching allocator brings outputs back to their addresses, which malloc does not, so the number of dimensions stands
    for the address."""
    zero = torch.zeros(1, dtype=torch.int64)

    def generator_of(device: torch.device) -> Generator | None:
        return None if device.type == "cuda" or capturing() else generators[0]

    with (
        patch.object(tensor_maps, "address_of", torch.Tensor.dim),
        patch.object(launch, "runs_triton", lambda x: True),
        patch.object(launch, "architecture", lambda device: 90),
        patch.object(launch, "multiprocessors", lambda device: 132),
        patch.object(launch, "raw_stream", lambda device: 0),
        patch.object(arguments, "generator_of", generator_of),
        patch.object(arguments, "_zero", lambda device: zero),
    ):
        launch.forget_plans()
        yield
        launch.forget_plans()


@contextmanager
def faked_launches() -> Iterator[None]:
    """As on a GPU, but a kept kernel is called with its arguments and does nothing, and maps are encoded as nothing."""

    def look_up(self: Any, inputs: dict[str, Any]) -> None:
        encoders = [Encoder(layout, lambda d: [None, *d.shape, *d.strides]) for layout in self.layouts.values()]
        expand = expander(encoders) if encoders else None
        self.compiled = (lambda *_: None, self.grid, 0, (), True, expand, triton.knobs.runtime)

    with as_on_a_gpu(), patch.object(launch.Launch, "look_up", look_up):
        yield


def forwards() -> Calls:
    """F.linear, lora_linear by every scheme that the dispatcher can choose, with and without dropout, paca_linear."""
    x = torch.randn(1, 16, dtype=torch.bfloat16, requires_grad=True)
    x3 = x.detach().view(1, 1, 16).requires_grad_()
    a, b = (torch.randn(16, 16, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    weight, border = bordered(torch.randn(16, 16, dtype=torch.bfloat16), 16)
    dense, index = weight.contiguous(), torch.arange(16)
    calls: Calls = {"F.linear": lambda: F.linear(x, dense)}

    def add(scheme: str, p: float) -> None:
        w = weight if scheme == "bordered" else dense
        name = f"lora_linear {scheme}" + (" dropout" if p else "")
        calls[name] = lambda: (lora_linear(x, w, a, b, scale=2.0, dropout_p=p, scheme=scheme), border)[0]

    for scheme in FORWARD_SCHEMES:
        add(scheme, 0.0)
    for scheme in FORWARD_SCHEMES:
        if scheme not in ("single_pass", "torch"):  # neither draws a mask
            add(scheme, 0.1)
    calls["lora_linear epilogue_tma 3-D"] = lambda: lora_linear(x3, dense, a, b, scale=2.0, scheme="epilogue_tma")
    calls["lora_linear cublas 3-D"] = lambda: lora_linear(x3, dense, a, b, scale=2.0, scheme="cublas")
    calls["paca_linear"] = lambda: paca_linear(x, dense, b, index, scheme="gather")
    return calls


def backwards() -> Calls:
    """Backward alone, for every gradient, of some schemes."""
    calls: Calls = {}

    def add(name: str, y: torch.Tensor, *inputs: torch.Tensor) -> None:
        dy = torch.ones_like(y)
        calls[f"backward {name}"] = lambda: torch.autograd.grad(y, inputs, dy, retain_graph=True)

    x = torch.randn(1, 16, dtype=torch.bfloat16, requires_grad=True)
    weight = torch.randn(16, 16, dtype=torch.bfloat16)
    a, b = (torch.randn(16, 16, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    add("F.linear", F.linear(x, weight), x)
    for scheme in ("cublas", "epilogue", "epilogue_tma", "epilogue_fused_da"):
        add(f"lora_linear {scheme}", lora_linear(x, weight, a, b, scale=2.0, scheme=f"epilogue/{scheme}"), x, a, b)
    add("paca_linear", paca_linear(x, weight, b, torch.arange(16), scheme="gather"), x, b)
    return calls


def microseconds(calls: Calls, rounds: int = 60, repeat: int = 60) -> dict[str, float]:
    """The least of the rounds' means: what the host needs when nothing else runs. The calls take turns."""
    least = dict.fromkeys(calls, float("inf"))
    for call in calls.values():
        for _ in range(2):  # plans and compiles
            call()
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            for _ in range(repeat):
                call()
            least[name] = min(least[name], (time.perf_counter() - begin) / repeat * 1e6)
    return least


def report() -> None:
    cost = microseconds(forwards() | backwards())
    unit = cost.pop("F.linear")
    print(f"F.linear {unit:.2f} us a call")
    for name, us in cost.items():
        if name.startswith("backward"):
            print(f"  {name:36} {us:6.2f} us")
            continue
        bound = " (bound 6)" if name.startswith("lora_linear") else ""
        print(f"  {name:36} {us - unit:6.2f} us beyond it = {(us - unit) / unit:.1f} x F.linear{bound}")


def over_the_stub_driver() -> None:
    """In a process of its own: Triton finds its driver once."""
    from tests.kernels.stub_driver import building

    lacking = building.missing()
    if lacking is not None:
        sys.exit(f"--stub-driver {lacking}")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, __file__], env=building.environment(Path(folder)), check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stub-driver", action="store_true", help="run Triton's launcher, over a stub of the driver")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    if os.environ.get("STUB_DRIVER") == "1":
        from tests.kernels.stub_driver import pretended_gpus

        pretended_gpus.install(tensors=False)
        with as_on_a_gpu(), pretended_gpus.unwatched():
            report()
    elif parser.parse_args().stub_driver:
        over_the_stub_driver()
    else:
        with faked_launches():
            report()


if __name__ == "__main__":
    main()
