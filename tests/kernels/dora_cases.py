"""What dora_linear's kernels must satisfy, run in the interpreter on every machine and on a GPU where there is one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from kernels import dora_linear, reference
from kernels.dora.autograd import Plan
from kernels.dora.linear import _case
from kernels.runtime import launch
from tests.kernels.kernel_correctness import DEVICE, LoraCase, compare, error, poison

F32, F16, B16 = torch.float32, torch.float16, torch.bfloat16
DTYPES = [F32, F16, B16] if DEVICE == "cpu" else [F16, B16]
LEAVES = ("x", "a", "b", "m", "bias")


@pytest.fixture(autouse=True)
def poison_and_count(monkeypatch):
    poison(monkeypatch)
    launch.counts.clear()


def drawn(case: LoraCase, magnitude: torch.dtype | None = None) -> dict[str, Tensor]:
    """LoraCase's tensors, and magnitudes 0.3 about the norms of W's rows, one of them 0."""
    t = case.tensors()
    norms = t["weight"].float().norm(dim=1).cpu()
    m = norms * (1 + 0.3 * torch.randn(case.n, generator=torch.Generator().manual_seed(3)))
    m[case.n // 2] = 0.0
    return t | {"m": m.to(magnitude or case.adapters or case.dtype).to(DEVICE)}


def results(function, t: dict[str, Tensor], case: LoraCase, wanted=LEAVES, **options) -> dict[str, Tensor]:
    """y and the gradients that are wanted, by name."""
    leaf = {k: None if v is None else v.detach().requires_grad_(k in wanted) for k, v in t.items()}
    y = function(
        leaf["x"], leaf["weight"], leaf["a"], leaf["b"], leaf["m"], scale=case.scale, bias=leaf["bias"], **options
    )
    leaves = {f"d{k}": leaf[k] for k in LEAVES if k in wanted and leaf[k] is not None}
    grads = dict(zip(leaves, torch.autograd.grad(y, list(leaves.values()), t["dy"]), strict=True))
    assert all(grads[k].dtype == leaf.dtype for k, leaf in leaves.items())
    return {"y": y.detach()} | grads


def gate(case: LoraCase, magnitude: torch.dtype | None = None, **options) -> None:
    """The kernels against the reference in the same dtypes, both measured against float64."""
    t = drawn(case, magnitude)
    ours = results(dora_linear, t, case, **options)
    assert launch.counts["row_norms_kernel"] == launch.counts["magnitude_kernel"] == 1
    assert launch.counts["magnitude_gradient_kernel"] == 1, "backward computed no norm again"
    # Adapters in fp32 are rounded by the kernels, where the reference computes the branch in fp32.
    rounded = t | {name: t[name].to(case.dtype) for name in ("a", "b")}
    eager = results(reference.dora_linear, rounded, case)
    exact = {k: None if v is None else v.cpu().double() for k, v in t.items()}
    compare(ours, eager, results(reference.dora_linear, exact, case), case.dtype, case.k)


SHAPES = [(5, 40, 24, 5), (37, 81, 75, 8), (37, 100, 60, 16), (70, 72, 100, 24), (33, 64, 96, 32), (40, 80, 72, 64)]
VARIANTS = [{}, {"bias": True}, {"conv1d": True, "lead": True}, {"strided": True, "bias": True, "scale": 2.0}]


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(v) or "plain")
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("number", range(len(SHAPES)), ids=lambda i: "m{}-k{}-n{}-r{}".format(*SHAPES[i]))
def test_dora(number: int, dtype: torch.dtype, variant: dict) -> None:
    gate(LoraCase(*SHAPES[number], dtype, **variant))


@pytest.mark.parametrize("rank", [1, 12, 48])
@pytest.mark.parametrize("scheme", ["epilogue/epilogue", "torch/torch"])
def test_dora_other_ranks_and_schemes(rank: int, scheme: str) -> None:
    gate(LoraCase(37, 80, 72, rank, DTYPES[0], bias=True), scheme=scheme)


@pytest.mark.parametrize("magnitude", [F32, None], ids=["fp32", "as-x"])
@pytest.mark.parametrize("dtype", [F16, B16], ids=lambda d: str(d)[6:])
def test_dora_masters_in_fp32(dtype: torch.dtype, magnitude: torch.dtype | None) -> None:
    gate(LoraCase(37, 80, 72, 8, dtype, adapters=F32, conv1d=True), magnitude or dtype)


@pytest.mark.parametrize("conv1d", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: str(d)[6:])
@pytest.mark.parametrize(("n", "k"), [(24, 1100), (200, 56)])
def test_dora_row_norms_in_several_parts(n: int, k: int, dtype: torch.dtype, conv1d: bool) -> None:
    t = LoraCase(4, k, n, 8, dtype, conv1d=conv1d).tensors()
    plan = Plan(_case(t["x"], t["weight"], t["a"], None), t["weight"], t["b"][:, 0], True)
    assert plan.parts > 1 or k < 100
    squares = plan.squares(t["weight"], t["a"], t["b"], 0.7)
    assert squares.shape == (plan.parts, n) and squares.dtype == F32
    weight, a, b = (t[name].cpu().double() for name in ("weight", "a", "b"))
    exact = (weight + 0.7 * b @ a).norm(dim=1)
    assert error(squares.sum(0).sqrt(), exact) < 1e-6, "A and B are as the kernel reads them: no rounding is left"


def test_dora_a_rank_above_the_tables_has_its_norm_by_torch() -> None:
    case = LoraCase(9, 40, 48, 65, DTYPES[0])
    ours = results(dora_linear, drawn(case), case)
    exact = {k: None if v is None else v.cpu().double() for k, v in drawn(case).items()}
    for name, right in results(reference.dora_linear, exact, case).items():
        assert error(ours[name], right) < (1e-6 if case.dtype == F32 else 5e-3), name
    assert launch.counts["magnitude_kernel"] == 1 and not launch.counts["row_norms_kernel"]


@pytest.mark.parametrize("wanted", ["x", "a", "b", "m", "xab", "xm", "bias"])
def test_dora_only_requested_gradients(wanted: str) -> None:
    case = LoraCase(37, 80, 72, 8, DTYPES[0], bias=True)
    names = ("bias",) if wanted == "bias" else tuple(wanted)
    ours = results(dora_linear, drawn(case), case, names)
    counts = dict(launch.counts)
    eager = results(reference.dora_linear, drawn(case), case, names)
    assert ours.keys() == eager.keys()
    for name, value in eager.items():
        assert error(ours[name], value) < (1e-5 if case.dtype == F32 else 3e-3), name
    assert counts.get("magnitude_gradient_kernel", 0) == (0 if wanted == "bias" else 1)
    if "m" not in names:
        assert counts.get("reduce_kernel", 0) <= 1, "dm was summed, and nobody asked for it"


def test_dora_z_is_kept_for_the_magnitude_alone() -> None:
    case, kept = LoraCase(37, 80, 72, 8, DTYPES[0]), []
    for trains in (True, False):
        t, seen = drawn(case), []
        x, m = t["x"].requires_grad_(), t["m"].requires_grad_(trains)
        with torch.autograd.graph.saved_tensors_hooks(lambda v, seen=seen: (seen.append(v), v)[1], lambda v: v):
            dora_linear(x, t["weight"], t["a"], t["b"], m, scale=1.0)
        kept.append(sum(v.shape == (37, 72) for v in seen))
    assert kept == [1, 0]


def test_dora_same_bits_every_time() -> None:
    case = LoraCase(70, 96, 200, 8, DTYPES[-1])
    first = results(dora_linear, drawn(case), case)
    again = results(dora_linear, drawn(case), case)
    assert all(torch.equal(again[name], value) for name, value in first.items())


def test_dora_gradients_of_stride_zero_and_of_rows_apart() -> None:
    case = LoraCase(37, 80, 72, 8, DTYPES[0])
    t = drawn(case)
    wide = torch.randn(37, 100, device=DEVICE).to(case.dtype)
    for dy in (torch.ones((), device=DEVICE, dtype=case.dtype).expand(37, 72), wide[:, :72]):
        strided = results(dora_linear, t | {"dy": dy}, case)
        dense = results(dora_linear, t | {"dy": dy.contiguous()}, case)
        assert all(torch.equal(strided[name], value) for name, value in dense.items())


def test_dora_autocast() -> None:
    """fp32 everything under autocast: 16-bit output, fp32 gradients, the bound of the 16-bit dtype."""
    case = LoraCase(37, 80, 72, 8, F32, bias=True)
    t = drawn(case)
    dy = t["dy"].to(B16)
    with torch.autocast(DEVICE, dtype=B16):
        ours = results(dora_linear, t | {"dy": dy}, case)
        eager = results(reference.dora_linear, t | {"dy": dy}, case)
    assert ours["y"].dtype == B16 and launch.counts["magnitude_gradient_kernel"] == 1
    for name, value in eager.items():
        assert error(ours[name], value) < 8e-3, name


def test_dora_odd_alignment_and_empty_input() -> None:
    case = LoraCase(37, 80, 72, 8, DTYPES[0], bias=True)
    t = drawn(case)
    same = results(dora_linear, t, case)
    for name in ("x", "weight", "a", "b", "m", "bias", "dy"):
        value = t[name]
        shifted = torch.empty(value.numel() + 1, dtype=value.dtype, device=DEVICE)[1:].view(value.shape).copy_(value)
        found = results(dora_linear, t | {name: shifted}, case)
        assert all(torch.equal(found[k], v) for k, v in same.items()), name
    empty = results(dora_linear, t | {"x": t["x"][:0], "dy": t["dy"][:0]}, case)
    assert empty["y"].shape == (0, 72) and not empty["dm"].any()


def test_dora_gradients_of_gradients_and_batches_of_gradients() -> None:
    """The norm is a constant in them too."""
    case = LoraCase(5, 40, 24, 4, DTYPES[0], bias=True)
    t = drawn(case)
    found = []
    for function in (dora_linear, reference.dora_linear):
        leaf = {k: v.detach().requires_grad_(k in LEAVES) for k, v in t.items()}
        y = function(leaf["x"], leaf["weight"], leaf["a"], leaf["b"], leaf["m"], scale=0.5, bias=leaf["bias"])
        leaves = [leaf[k] for k in LEAVES]
        first = torch.autograd.grad(y.float().square().sum(), leaves, create_graph=True)
        second = torch.autograd.grad(sum(g.float().square().sum() for g in first), leaves, retain_graph=True)
        batch = torch.autograd.grad(y, leaves, torch.stack([t["dy"], 2 * t["dy"]]), is_grads_batched=True)
        found.append([*first, *second, *batch])
    tolerance = 1e-5 if case.dtype == F32 else 2e-2
    assert all(error(ours, eager) < tolerance for ours, eager in zip(*found, strict=True))


def test_dora_functional_transforms_take_the_reference() -> None:
    t = drawn(LoraCase(5, 40, 24, 4, DTYPES[0]))

    def loss(m: Tensor, function=dora_linear) -> Tensor:
        return function(t["x"], t["weight"], t["a"], t["b"], m, scale=0.5).float().square().sum()

    assert (
        error(torch.func.grad(loss)(t["m"]), torch.func.grad(lambda m: loss(m, reference.dora_linear))(t["m"])) < 1e-5
    )
    assert not launch.counts
