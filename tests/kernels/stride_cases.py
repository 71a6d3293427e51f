"""Operands of any strides, offsets and sizes give what their contiguous copies give, in values and in gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels import lora_linear, lora_linear_group, paca_linear, reference
from kernels.lora.custom_ops import lora_linear_compiled
from kernels.paca.custom_ops import paca_linear_compiled

SIZES = st.sampled_from([0, 1, 2, 3, 5, 8, 16])
#: How the values of a tensor lie in memory, by name: each takes a contiguous tensor and returns one that is equal to
#: it, except for 'expanded', where a dimension repeats its first slice.
LAYOUTS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "contiguous": lambda t, d: t,
    "offset": lambda t, d: torch.cat([t.new_full((3,), 7), t.flatten()])[3:].view(t.shape),
    "transposed": lambda t, d: t.transpose(0, -1).contiguous().transpose(0, -1),
    "every third": lambda t, d: t.repeat_interleave(3, d).narrow(d, 0, 3 * t.shape[d])[_every(t.dim(), d, 3)],
    "slice of wider": lambda t, d: torch.cat([t.new_full(t.shape, 7), t, t.new_full(t.shape, 7)], d).narrow(
        d, t.shape[d], t.shape[d]
    ),
    "negated": lambda t, d: torch.complex(torch.zeros_like(t), -t).conj().imag if t.is_floating_point() else t,
    "expanded": lambda t, d: t.narrow(d, 0, min(1, t.shape[d])).expand(t.shape),
}


def _every(dims: int, d: int, step: int) -> tuple[slice, ...]:
    return tuple(slice(None, None, step if i == d else None) for i in range(dims))


@st.composite
def laid_out(draw: st.DrawFn, shape: tuple[int, ...], distinct: bool = False) -> Tensor:
    """A random tensor of this shape in a random layout; distinct: its values stay what they are."""
    seed = draw(st.integers(0, 2**16))
    t = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    names = [name for name in LAYOUTS if not (distinct and name == "expanded")]
    return LAYOUTS[draw(st.sampled_from(names))](t, draw(st.integers(0, len(shape) - 1)))


@st.composite
def lora_operands(draw: st.DrawFn) -> dict[str, Tensor | None]:
    m, n, k, r = draw(SIZES), draw(SIZES), draw(SIZES), draw(SIZES.filter(bool))
    lead = draw(st.sampled_from([(), (2,), (1, 3), (0,)]))
    return {
        "x": draw(laid_out((*lead, m, k))), "weight": draw(laid_out((n, k))), "lora_a": draw(laid_out((r, k))),
        "lora_b": draw(laid_out((n, r))), "bias": draw(st.one_of(st.none(), laid_out((n,)))),
        "dy": draw(laid_out((*lead, m, n))),
    }  # fmt: skip


@st.composite
def paca_operands(draw: st.DrawFn) -> dict[str, Tensor | None]:
    m, n, k = draw(SIZES), draw(SIZES), draw(SIZES.filter(bool))
    r = draw(st.integers(1, k))
    values = torch.tensor(draw(st.permutations(range(k)))[:r], dtype=draw(st.sampled_from([torch.int32, torch.int64])))
    layout = draw(st.sampled_from([name for name in LAYOUTS if name != "expanded"]))
    return {
        "x": draw(laid_out((m, k))), "weight": draw(laid_out((n, k))), "columns": draw(laid_out((n, r))),
        "index": LAYOUTS[layout](values, 0), "bias": draw(st.one_of(st.none(), laid_out((n,)))),
        "dy": draw(laid_out((m, n))),
    }  # fmt: skip


def outcome(
    function: Callable[..., Tensor], operands: dict[str, Tensor | None], trained: tuple[str, ...], **options: object
) -> list[Tensor]:
    """y and the gradients of what is trained."""
    given = {name: t for name, t in operands.items() if name != "dy"}
    leaves = {name: t.detach().requires_grad_() for name in trained if (t := given[name]) is not None}
    y = function(**{**given, **leaves}, **options)
    return [y, *torch.autograd.grad(y, list(leaves.values()), operands["dy"], materialize_grads=True)]


def in_float64(operands: dict[str, Tensor | None]) -> dict[str, Tensor | None]:
    """Contiguous copies, which share nothing with what the function under test was given."""
    return {
        name: None if t is None else t.detach().clone(memory_format=torch.contiguous_format).to(
            torch.float64 if t.is_floating_point() else t.dtype
        )
        for name, t in operands.items()
    }  # fmt: skip


def equal(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.double(), other.double(), rtol=1e-4, atol=1e-4)


def lora_compiled(x, weight, lora_a, lora_b, *, scale, bias, scheme=None):
    """What torch.compile traces."""
    return lora_linear_compiled(x, weight, lora_a, lora_b, scale, bias, 0.0, None, scheme)


def paca_compiled(x, weight, columns, index, *, scale, bias):
    return paca_linear_compiled(x, weight, columns, index, scale, bias, None)


def lora_in_group(x, weight, lora_a, lora_b, *, scale, bias):
    """The first of two siblings; the second goes through the kernels too."""
    ys = lora_linear_group(
        x, [weight, weight], [lora_a, lora_a], [lora_b, lora_b], scale=scale, biases=[bias, bias]
    )  # fmt: skip
    torch.testing.assert_close(*ys)
    return ys[0]


TRAINED = ("x", "weight", "lora_a", "lora_b", "bias")
SOME = settings(max_examples=25, deadline=None, derandomize=True, database=None)


@pytest.mark.parametrize("function", [lora_linear, lora_compiled, lora_in_group], ids=lambda f: f.__name__)
@given(operands=lora_operands(), scale=st.sampled_from([1, 2, -3, 0.5, 0]))
@SOME
def test_lora(function, operands, scale) -> None:
    theirs = outcome(reference.lora_linear, in_float64(operands), TRAINED, scale=scale)
    equal(outcome(function, operands, TRAINED, scale=scale), theirs)


@pytest.mark.parametrize("function", [paca_linear, paca_compiled], ids=lambda f: f.__name__)
@given(operands=paca_operands(), scale=st.sampled_from([1, 2, -3, 0.5, 0]))
@SOME
def test_paca(function, operands, scale) -> None:
    trained = ("x", "columns", "bias")
    theirs = outcome(reference.paca_linear, in_float64(operands), trained, scale=scale)
    equal(outcome(function, operands, trained, scale=scale), theirs)


@pytest.mark.parametrize("scheme", ["epilogue_tma/epilogue_tma", "single_pass/epilogue", "cublas/cublas_fused_da"])
@pytest.mark.parametrize("name", ["weight", "lora_a", "lora_b", "bias", "dy", "x"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_lora_by_every_scheme(layout: str, name: str, scheme: str) -> None:
    shapes = {"x": (6, 16), "weight": (24, 16), "lora_a": (4, 16), "lora_b": (24, 4), "bias": (24,), "dy": (6, 24)}
    g = torch.Generator().manual_seed(1)
    operands: dict[str, Tensor | None] = {key: torch.randn(shape, generator=g) for key, shape in shapes.items()}
    operands[name] = LAYOUTS[layout](operands[name], 0)
    theirs = outcome(reference.lora_linear, in_float64(operands), TRAINED, scale=0.5)
    if layout == "offset" and "tma" in scheme and name in ("x", "weight", "dy"):
        with pytest.raises(ValueError, match="multiples of 16 bytes"):
            outcome(lora_linear, operands, TRAINED, scale=0.5, scheme=scheme)
    else:
        equal(outcome(lora_linear, operands, TRAINED, scale=0.5, scheme=scheme), theirs)


REPACKED = {
    "transposed": lambda t: t.clone().transpose(0, -1).contiguous().transpose(0, -1),
    "contiguous": lambda t: t.clone(memory_format=torch.contiguous_format),
    "offset": lambda t: LAYOUTS["offset"](t.clone(), 0),
}


@pytest.mark.parametrize("how", REPACKED)
@pytest.mark.parametrize("conv1d", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("scheme", ["epilogue/epilogue", "epilogue/epilogue_fused_da", "cublas/cublas", None])
def test_what_was_saved_may_come_back_in_another_layout(scheme: str | None, conv1d: bool, how: str) -> None:
    """As from torch.autograd.graph.save_on_cpu, which hands out contiguous copies of what was transposed."""
    g = torch.Generator().manual_seed(1)
    shapes = {"x": (6, 16), "weight": (24, 16), "lora_a": (4, 16), "lora_b": (24, 4), "bias": (24,), "dy": (6, 24)}
    operands: dict[str, Tensor | None] = {key: torch.randn(shape, generator=g) for key, shape in shapes.items()}
    operands["weight"] = LAYOUTS["transposed" if conv1d else "contiguous"](operands["weight"], 0)
    theirs = outcome(reference.lora_linear, in_float64(operands), TRAINED, scale=0.5)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, REPACKED[how]):
        equal(outcome(lora_linear, operands, TRAINED, scale=0.5, scheme=scheme), theirs)
        if scheme is None:
            equal(outcome(lora_in_group, operands, TRAINED, scale=0.5), theirs)


@pytest.mark.parametrize("how", REPACKED)
@pytest.mark.parametrize("scheme", ["gather", "fused"])
def test_what_paca_saved_may_come_back_in_another_layout(scheme: str, how: str) -> None:
    g = torch.Generator().manual_seed(1)
    shapes = {"x": (6, 16), "weight": (24, 16), "columns": (24, 4), "bias": (24,), "dy": (6, 24)}
    operands: dict[str, Tensor | None] = {key: torch.randn(shape, generator=g) for key, shape in shapes.items()}
    operands["index"] = torch.tensor([3, 15, 0, 8])
    trained = ("x", "columns", "bias")
    theirs = outcome(reference.paca_linear, in_float64(operands), trained, scale=0.5)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, REPACKED[how]):
        equal(outcome(paca_linear, operands, trained, scale=0.5, scheme=scheme), theirs)
