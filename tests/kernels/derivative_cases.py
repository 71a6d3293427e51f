"""Gradients of gradients, batches of gradients and transformed calls: as plain torch has them, whatever computed y."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from torch import Tensor

from kernels import lora_linear, lora_linear_group, paca_linear
from kernels.lora import keep_mask
from kernels.lora.bordered_weight import bordered
from kernels.runtime import launch

M, N, K, R, SCALE, DROP = 5, 24, 40, 4, 1.5, 0.25
INDEX = torch.tensor([3, 8, 21, 30])
Function = Callable[..., Tensor]


def drawn() -> dict[str, Tensor]:
    """x, weight, a, b, bias, columns; the weight holds the live columns."""
    g = torch.Generator().manual_seed(3)
    shapes = {"x": (1, M, K), "weight": (N, K), "a": (R, K), "b": (N, R), "bias": (N,), "columns": (N, R)}
    t = {name: torch.randn(shape, generator=g) / shape[-1] ** 0.5 for name, shape in shapes.items()}
    t["weight"][:, INDEX] = SCALE * t["columns"]
    return t


def plain_lora(x: Tensor, a: Tensor, b: Tensor, weight: Tensor, bias: Tensor, keep: Tensor | None = None) -> Tensor:
    kept = x if keep is None else x * keep / (1 - DROP)
    return F.linear(x, weight, bias) + SCALE * (kept @ a.T) @ b.T


def plain_paca(x: Tensor, columns: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(x, weight.index_copy(1, INDEX, SCALE * columns), bias)


def lora_by(scheme: str | None) -> tuple[Function, Function]:
    def ours(x: Tensor, a: Tensor, b: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if scheme and scheme.startswith("bordered"):
            weight, buffer = bordered(weight, R)
            ours.kept = buffer  # type: ignore[attr-defined]
        return lora_linear(x, weight, a, b, scale=SCALE, bias=bias, scheme=scheme)

    return ours, plain_lora


def dropped() -> tuple[Function, Function]:
    def ours(x: Tensor, a: Tensor, b: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return lora_linear(x, weight, a, b, scale=SCALE, bias=bias, dropout_p=DROP, seed=7)

    def plain(x: Tensor, a: Tensor, b: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return plain_lora(x, a, b, weight, bias, keep_mask(x.detach(), DROP, 7))

    return ours, plain


def grouped() -> tuple[Function, Function]:
    def ours(x: Tensor, a: Tensor, b: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        two = lora_linear_group(x, [weight, weight[:8]], [a, 2 * a], [b, b[:8]], scale=SCALE, biases=[bias, None])
        return torch.cat(two, -1)

    def plain(x: Tensor, a: Tensor, b: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        nothing = torch.zeros(8)
        return torch.cat([plain_lora(x, a, b, weight, bias), plain_lora(x, 2 * a, b[:8], weight[:8], nothing)], -1)

    return ours, plain


def paca_by(scheme: str | None) -> tuple[Function, Function]:
    def ours(x: Tensor, columns: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return paca_linear(x, weight, columns, INDEX, scale=SCALE, bias=bias, scheme=scheme)

    return ours, plain_paca


CASES: dict[str, tuple[tuple[Function, Function], str]] = {
    "lora": (lora_by(None), "x a b"),
    "lora cublas": (lora_by("cublas/cublas"), "x a b"),
    "lora epilogue": (lora_by("epilogue/epilogue"), "x a b"),
    "lora single_pass": (lora_by("single_pass/cublas_fused_da"), "x a b"),
    "lora bordered": (lora_by("bordered/cublas"), "x a b"),
    "lora torch": (lora_by("torch/torch"), "x a b"),
    "lora, A frozen": (lora_by(None), "x b"),
    "lora, bordered, A frozen": (lora_by("bordered/cublas"), "x b"),
    "lora, only A": (lora_by(None), "a"),
    "lora, weight and bias too": (lora_by(None), "x a b weight bias"),
    "lora under dropout": (dropped(), "x a b"),
    "group": (grouped(), "x a b"),
    "group, A frozen": (grouped(), "x b"),
    "paca": (paca_by(None), "x columns"),
    "paca gather": (paca_by("gather"), "x columns"),
    "paca fused": (paca_by("fused"), "x columns"),
    "paca torch": (paca_by("torch"), "x columns"),
    "paca, only columns": (paca_by(None), "columns"),
}
# Asked for by name, these two launch whatever the device.
BY_KERNELS = {"paca gather", "paca fused"}
if not launch.interpreting():
    CASES = {name: case for name, case in CASES.items() if name not in BY_KERNELS}


def called(name: str) -> list[tuple[Callable[..., Tensor], list[Tensor]]]:
    """(function of the trained tensors, these tensors), ours and plain torch's."""
    functions, trained = CASES[name]
    results = []
    for function in functions:
        t = drawn()
        leaves = {key: t[key].requires_grad_() for key in trained.split()}
        order = ("x", "columns", "weight", "bias") if "paca" in name else ("x", "a", "b", "weight", "bias")

        def call(*given: Tensor, function=function, t=t, keys=tuple(leaves), order=order) -> Tensor:
            now = t | dict(zip(keys, given, strict=True))
            return function(*(now[key] for key in order))

        results.append((call, list(leaves.values())))
    return results


def equal(ours: object, theirs: object) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_a_penalty_on_the_gradients_is_differentiated(name: str) -> None:
    found = []
    for call, leaves in called(name):
        loss = torch.tanh(call(*leaves)).square().sum()
        first = torch.autograd.grad(loss, leaves, create_graph=True)
        penalty = sum(g.square().sum() for g in first)
        second = torch.autograd.grad(loss + penalty, leaves, create_graph=True)
        third = torch.autograd.grad(sum(g.square().sum() for g in second), leaves)
        found.append([*first, *second, *third])
    equal(*found)


@pytest.mark.parametrize("name", ["lora", "lora under dropout", "lora, A frozen", "paca"])
def test_a_linear_loss_has_the_curvature_of_the_product(name: str) -> None:
    """dY is a constant here: the second derivative comes from what was saved alone."""
    found = []
    for call, leaves in called(name):
        first = torch.autograd.grad(call(*leaves).sum(), leaves, create_graph=True)
        sum(g.sum() for g in first[1:]).backward(inputs=[leaves[0]], retain_graph=True)
        sum(g.square().sum() for g in first).backward()
        found.append([leaf.grad for leaf in leaves])
    equal(*found)


@pytest.mark.parametrize("name", ["lora", pytest.param("group", marks=pytest.mark.slow), "paca"])
def test_hessian_hvp_and_jvp(name: str) -> None:
    found = []
    for call, leaves in called(name):
        x, *rest = (leaf.detach() for leaf in leaves)
        part = x[0, 0, :6].clone()

        def loss(part: Tensor, call=call, x=x, rest=tuple(rest)) -> Tensor:
            return torch.tanh(call(torch.cat([part, x[0, 0, 6:]])[None], *rest)).sum()

        hessian = torch.autograd.functional.hessian(loss, part)
        assert hessian.abs().sum() > 0.01
        hvp = torch.autograd.functional.hvp(loss, part, torch.ones_like(part))
        jvp = torch.autograd.functional.jvp(loss, part, torch.ones_like(part))
        found.append([hessian, *hvp, *jvp])
    equal(*found)


@pytest.mark.parametrize("name", ["lora", "lora under dropout", "lora bordered", "group", "paca"])
def test_batches_of_gradients(name: str) -> None:
    found = []
    for call, leaves in called(name):
        y = call(*leaves)
        dys = torch.randn(3, *y.shape, generator=torch.Generator().manual_seed(1))
        batched = torch.autograd.grad(y, leaves, dys, is_grads_batched=True, retain_graph=True)
        mapped = torch.func.vmap(lambda dy, y=y, leaves=leaves: torch.autograd.grad(y, leaves, dy, retain_graph=True))
        found.append([*batched, *mapped(dys)])
    equal(*found)


def dual(call: Callable[..., Tensor], leaves: list[Tensor]) -> object:
    with forward_ad.dual_level():
        made = [forward_ad.make_dual(leaf.detach(), torch.ones_like(leaf)) for leaf in leaves]
        return tuple(forward_ad.unpack_dual(call(*made)))


def traced(call: Callable[..., Tensor], leaves: list[Tensor]) -> object:
    given = tuple(leaf.detach() for leaf in leaves)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shapes become constants, as a trace says of plain torch too
        return torch.jit.trace(call, given, check_trace=False)(2 * given[0], *given[1:])


class Labelled(Tensor):
    """A subclass that behaves as a tensor."""


TRANSFORMED: dict[str, Callable[[Callable[..., Tensor], list[Tensor]], object]] = {
    "torch.func.grad": lambda call, t: torch.func.grad(lambda *t: call(*t).square().sum(), tuple(range(len(t))))(*t),
    "torch.func.grad of the last, after a plain call": lambda call, t: (
        call(*t),
        torch.func.grad(lambda last: call(*t[:-1], last).square().sum())(t[-1]),
    ),
    "torch.func.jvp": lambda call, t: torch.func.jvp(call, tuple(t), tuple(torch.ones_like(leaf) for leaf in t)),
    "torch.func.hessian": lambda call, t: torch.func.hessian(lambda x: torch.tanh(call(x, *t[1:])).sum())(t[0]),
    "vmap over x": lambda call, t: torch.func.vmap(lambda x: call(x, *t[1:]))(torch.stack([t[0], 2 * t[0]])),
    "forward mode": dual,
    "torch.jit.trace": traced,
    "a subclass": lambda call, t: call(t[0].detach().as_subclass(Labelled), *t[1:]).as_subclass(Tensor),
    "an empty x": lambda call, t: torch.autograd.grad(call(t[0][:, :0], *t[1:]).sum(), t),
}


@pytest.mark.parametrize("how", TRANSFORMED)
@pytest.mark.parametrize("name", ["lora", "group", "paca"])
def test_transformed_calls(name: str, how: str) -> None:
    ours, theirs = (TRANSFORMED[how](call, leaves) for call, leaves in called(name))
    equal(ours, theirs)


@pytest.mark.parametrize("name", ["lora", "lora cublas", "lora bordered", "group", "paca"])
def test_y_can_be_written_into(name: str) -> None:
    """As residual connections and activations in place do."""
    found = []
    for call, leaves in called(name):
        y = call(*leaves)
        y += 1
        torch.relu_(y)
        found.append(torch.autograd.grad(y.square().sum(), leaves))
    equal(*found)
