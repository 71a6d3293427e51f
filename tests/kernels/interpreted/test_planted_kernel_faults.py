"""Every check can fail: a fault planted between the host code and a kernel is caught by the correctness check."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from kernels.runtime import launch
from tests.kernels.kernel_correctness import LoraCase, PacaCase, gate_lora, gate_paca, poison

F16 = torch.float16
PACA_CASE = PacaCase(50, 80, 136, 8, F16)


@pytest.fixture
def plant(monkeypatch):
    """plant(kernel, change): change(launch, its inputs) alters them before every launch of that kernel."""
    poison(monkeypatch)

    def plant(kernel: str, change) -> list:
        planted = []

        def start(run, inputs: dict) -> None:
            if run.name == f"{kernel}_kernel":
                change(run, inputs)
                planted.append(kernel)
            run.start(inputs)

        monkeypatch.setattr(launch, "recorder", start)
        return planted

    return plant


def argument(name: str, to):
    """The change that replaces one input of the kernel, by its name."""

    def change(_, inputs: dict) -> None:
        inputs[name] = to(inputs[name])

    return change


def missing_tile(run, _: dict) -> None:
    x, y, z = run.grid
    assert x > 1
    run.grid = (x - 1, y, z)


def missing_part(run, _: dict) -> None:
    x, y, z = run.grid
    assert y > 1
    run.grid = (x, y - 1, z)


@pytest.fixture(autouse=True)
def fresh_plans():
    """A fault may sit in a plan: none outlives its test."""
    yield
    launch.forget_plans()


def lora_case(dropout: float, missing: bool) -> LoraCase:
    """What is missing can only be missed where there are several tiles and parts."""
    m, k, n = (50, 144, 144) if missing else (20, 80, 72)
    return LoraCase(m, k, n, 8, F16, bias=True, dropout=dropout)


@cache
def passes_without_a_fault(scheme: str) -> None:
    """The check of the same case and scheme, once for all of their faults."""
    if "/" in scheme:
        gate_lora(lora_case(0.0, missing=False), scheme)
    else:
        gate_paca(PACA_CASE, scheme)


def double(value):
    return 2 * value


def invert(mask):
    return None if mask is None else ~mask


LORA_FAULTS = {
    "doubled scale in S": ("project", argument("scale", double), "epilogue/epilogue", 0.0),
    "doubled scale in one pass": ("single_pass", argument("scale", double), "single_pass/epilogue", 0.0),
    "doubled scale in dS": ("branch_gradients", argument("scale", double), "epilogue/epilogue", 0.0),
    "doubled scale in the reduction": ("reduce", argument("scale", double), "epilogue/epilogue", 0.0),
    "another mask in forward": ("project", argument("p_seed", lambda seed: seed + 1), "epilogue/epilogue", 0.1),
    "another rate in forward": ("project", argument("threshold", double), "epilogue/epilogue", 0.1),
    "inverted mask in dX": ("gemm", argument("p_mask", invert), "epilogue/epilogue", 0.1),
    "inverted mask in dA": ("skinny", argument("p_mask", invert), "epilogue/epilogue", 0.1),
    "inverted mask in dA beside dS": (
        "branch_gradients",
        argument("p_mask", invert),
        "epilogue/epilogue_fused_da",
        0.1,
    ),
    "no bias": ("gemm", argument("p_bias", lambda b: None if b is None else 0 * b), "epilogue/epilogue", 0.0),
    "missing tile of S": ("project", missing_tile, "epilogue/epilogue", 0.0),
    "missing part of S": ("project", missing_part, "epilogue/epilogue", 0.0),
    "missing tile of the GEMM": ("gemm", missing_tile, "epilogue/epilogue", 0.0),
    "missing tile of one pass": ("single_pass", missing_tile, "single_pass/epilogue", 0.0),
    "missing tile of dS": ("branch_gradients", missing_tile, "epilogue/epilogue", 0.0),
    "missing tile of dA": ("skinny", missing_tile, "epilogue/epilogue", 0.0),
    "missing tile of the reduction": ("reduce", missing_tile, "epilogue/epilogue", 0.0),
    "a transposed weight": ("gemm", argument("p_w", lambda w: w.flip(0).contiguous()), "epilogue/epilogue", 0.0),
    "A's rows in another order": (
        "project",
        argument("p_a", lambda a: a.flip(0).contiguous()),
        "epilogue/epilogue",
        0.0,
    ),
}


@pytest.mark.parametrize("fault", LORA_FAULTS)
def test_fault_in_lora_is_caught(fault: str, plant) -> None:
    kernel, change, scheme, dropout = LORA_FAULTS[fault]
    case = lora_case(dropout, "missing" in fault)
    if dropout == 0.0:
        passes_without_a_fault(scheme)
    if kernel == "project" and dropout:
        # The baseline's mask comes from the same kernel: it is taken before the fault.
        from tests.kernels import kernel_correctness

        keep = kernel_correctness.keep_mask(case.tensors()["x"], dropout, 11)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernel_correctness, "keep_mask", lambda *_: keep)
            planted = plant(kernel, change)
            with pytest.raises(AssertionError, match="error"):
                gate_lora(case, scheme)
    else:
        planted = plant(kernel, change)
        with pytest.raises(AssertionError, match=r"error|not finite"):
            gate_lora(case, scheme)
    assert planted, "the kernel never ran"


PACA_FAULTS = {
    "swapped index": ("gather", argument("p_index", lambda index: index.flip(0).contiguous()), "gather"),
    "swapped index in the fused gather": (
        "skinny",
        argument("p_index", lambda index: index.flip(0).contiguous()),
        "fused",
    ),
    "index off by one": ("gather", argument("p_index", lambda index: (index - 1).clamp(0)), "gather"),
    "doubled scale": ("reduce", argument("scale", double), "gather"),
    "missing tile of the gather": ("gather", missing_tile, "gather"),
    "missing tile of dP": ("skinny", missing_tile, "gather"),
}


@pytest.mark.parametrize("fault", PACA_FAULTS)
def test_fault_in_paca_is_caught(fault: str, plant) -> None:
    kernel, change, scheme = PACA_FAULTS[fault]
    passes_without_a_fault(scheme)
    planted = plant(kernel, change)
    with pytest.raises(AssertionError, match=r"error|not finite"):
        gate_paca(PACA_CASE, scheme)
    assert planted, "the kernel never ran"


def test_fall_back_to_the_reference_is_caught(monkeypatch) -> None:
    """The correctness check alone would not see it; the launch counter does."""
    monkeypatch.setattr(launch, "runs_triton", lambda x: False)
    launch.counts.clear()
    gate_lora(LoraCase(20, 40, 24, 8, F16))
    assert not launch.counts
