"""What the kernels must satisfy under dropout, where kernel_cases.py runs."""

from __future__ import annotations

import pytest
import torch

from kernels import lora_linear, reference
from kernels.lora import keep_mask
from kernels.lora.autograd import make_plan
from kernels.lora.forward import build_project
from kernels.runtime import launch
from tests.kernels.kernel_cases import DTYPES, F16, F32, leaves
from tests.kernels.kernel_correctness import DEVICE, LoraCase, gate_lora


@pytest.mark.parametrize("scheme", ["cublas/cublas", "epilogue/epilogue", "epilogue/epilogue_fused_da"])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("shape", [(37, 81, 75, 8), (50, 96, 64, 24)], ids=str)
def test_lora_dropout(shape: tuple, dtype: torch.dtype, scheme: str) -> None:
    gate_lora(LoraCase(*shape, dtype, dropout=0.1, bias=True), scheme)


@pytest.mark.parametrize("conv1d", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("rank", [5, 16, 32, 64])
def test_lora_dropout_by_descriptors(rank: int, dtype: torch.dtype, conv1d: bool) -> None:
    """dX's masked branch, half a tile at a time; 34 rows and 56 columns end within a tile, and within a half."""
    scheme = "epilogue_tma/epilogue_tma" + ("_fused_da" if rank == 16 else "")
    gate_lora(LoraCase(34, 56, 24, rank, dtype, dropout=0.1, bias=True, conv1d=conv1d), scheme)
    assert launch.counts["gemm_tma_kernel"] == 2


def test_dropout_mask() -> None:
    x = torch.ones(101, 163, device=DEVICE, dtype=F16)
    keep = keep_mask(x, 0.1, 3)
    n = keep.numel()
    assert abs(keep.double().mean().item() - 0.9) < 4 * (0.09 / n) ** 0.5
    for axis in (0, 1):
        spread = keep.double().mean(axis)
        assert (spread - 0.9).abs().max() < 6 * (0.09 / keep.shape[axis]) ** 0.5
    assert torch.equal(keep, keep_mask(x, 0.1, 3)) and not torch.equal(keep[:20], keep_mask(x[:20], 0.1, 4))
    assert torch.equal(keep_mask(x[:50], 0.1, 3), keep[:50]), "a row's mask does not depend on the other rows"
    assert not torch.equal(keep_mask(x[:20], 0.1, 2**40 + 3), keep[:20])
    halves = keep_mask(x, 0.5, 3)
    assert bool((keep | ~halves).all()), "one draw per element, whatever the rate"


@pytest.mark.parametrize("seed", [1, -(2**40) - 3])
def test_a_seed_from_the_host_is_the_seed_in_memory(seed: int) -> None:
    x = torch.ones(16, 64, device=DEVICE, dtype=F16)
    a = x.new_zeros(1, 64)
    project = build_project(make_plan(x, a, a, None, True, "cublas", False).spec, 1)
    in_memory, zero = (torch.tensor([value], device=DEVICE) for value in (seed, 0))
    _, mask = project(x, a, 1.0, 0.5, in_memory)
    assert torch.equal(project(x, a, 1.0, 0.5, (zero, seed))[1], mask)
    assert not torch.equal(project(x, a, 1.0, 0.5, (in_memory, 1))[1], mask)


@pytest.mark.slow
def test_dropout_masks_of_neighbours_are_independent() -> None:
    """At a rate of 0.5 two independent bits agree half of the time: those of neighbouring rows, of neighbouring columns
    (of one Philox call and of two), and of seeds that differ in one bit."""
    x = torch.ones(64, 256, device=DEVICE, dtype=F16)
    keep = keep_mask(x, 0.5, 3)
    pairs = {f"rows {d} apart": (keep[d:], keep[:-d]) for d in (1, 2, 32)}
    pairs |= {f"columns {d} apart": (keep[:, d:], keep[:, :-d]) for d in (1, 2, 4, 7, 8, 16, 128)}
    pairs |= {f"seeds 3 and {seed}": (keep, keep_mask(x, 0.5, seed)) for seed in (2, 2**32 + 3)}
    for what, (one, other) in pairs.items():
        agreed = (one == other).double().mean().item()
        assert abs(agreed - 0.5) < 4 * (0.25 / one.numel()) ** 0.5, f"{what}: {agreed:.4f} of the bits agree"


def test_dropout_survivors_are_scaled_and_masks_agree() -> None:
    """With W = 0, A = ones and B = ones, y and dx show the mask directly."""
    m, k, n = 37, 80, 24
    x = torch.ones(m, k, device=DEVICE, dtype=F32 if DEVICE == "cpu" else F16).requires_grad_()
    a, b = x.new_ones(1, k).requires_grad_(), x.new_ones(n, 1)
    y = lora_linear(x, x.new_zeros(n, k), a, b, scale=1.0, dropout_p=0.25, seed=9, scheme="epilogue/epilogue")
    keep = keep_mask(x, 0.25, 9).to(x.dtype)
    torch.testing.assert_close(y[:, 0], keep.sum(1) / 0.75, rtol=2e-3, atol=0)
    y.sum().backward()
    torch.testing.assert_close(x.grad, keep * n / 0.75, rtol=2e-3, atol=0)
    torch.testing.assert_close(a.grad[0], keep.sum(0) * n / 0.75, rtol=2e-3, atol=0)


def test_dropout_seed_is_drawn_where_none_is_given() -> None:
    t, x, a, b = leaves()
    torch.manual_seed(1)
    first = lora_linear(x, t["weight"], a, b, scale=1.0, dropout_p=0.5)
    second = lora_linear(x, t["weight"], a, b, scale=1.0, dropout_p=0.5)
    torch.manual_seed(1)
    again = lora_linear(x, t["weight"], a, b, scale=1.0, dropout_p=0.5)
    assert torch.equal(first, again) and not torch.equal(first, second)


@pytest.mark.parametrize("scheme", [None, "torch"])
def test_dropout_without_a_kernel_to_draw_it(scheme: str | None) -> None:
    """Ranks above the tables run in cuBLAS, which draws no mask: with dropout the reference takes over."""
    t = LoraCase(20, 80, 72, 8 if scheme else 70, DTYPES[0]).tensors()
    arguments = (t["x"], t["weight"], t["a"], t["b"])
    ours = lora_linear(*arguments, scale=1.0, dropout_p=0.5, seed=3, scheme=scheme)
    assert torch.equal(ours, reference.lora_linear(*arguments, scale=1.0, dropout_p=0.5, seed=3))
    assert not torch.equal(ours, lora_linear(*arguments, scale=1.0, scheme=scheme))
