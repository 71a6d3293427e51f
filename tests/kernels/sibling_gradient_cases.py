"""Siblings' gradients where autograd is asked for more than one backward: recomputation, outputs one by one, again."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from tests.kernels.kernel_correctness import DEVICE, error
from tests.kernels.sibling_models import CLOSE, DTYPE, SIZES, Attention, attention, inputs, observed, passes


def test_each_output_may_have_a_backward_of_its_own() -> None:
    """As layers alone have: what one backward frees, another still needs; a sibling without one gets no gradient."""
    model, x = attention(), inputs()
    expected = observed(model, x)
    dy = torch.randn((2, 5, 56), generator=torch.Generator().manual_seed(7), dtype=torch.float64).to(DEVICE, DTYPE)
    leaf = x.requires_grad_()
    passes()
    q, k, v = model.q(leaf), model.k(leaf), model.v(leaf)
    assert passes() == 1
    q.backward(dy[..., :24])
    assert model.k.lora_a.grad is None and model.v.lora_b.grad is None
    with pytest.raises(RuntimeError, match="second time"):
        q.backward(dy[..., :24])
    torch.autograd.backward([k, v], [dy[..., 24:40], dy[..., 40:]])
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None} | {"dx": leaf.grad}
    assert all(error(found[name], expected[name]) < CLOSE for name in expected if name != "y")
    model.q(leaf).sum().backward()  # frees what v's output of this group would need
    model.v(leaf).sum().backward()
    q, v = model.q(leaf), (model.k(leaf), model.v(leaf))[1]
    q.sum().backward()
    with torch.no_grad():
        model.v.lora_b.mul_(2)
    with pytest.raises(RuntimeError):
        v.sum().backward()


def linear_in_x(model: Attention, forward, x: Tensor) -> float:
    """Without bias y is linear in x where both passes have the same mask: then <x, dX> = <y, dY>."""
    model.k.base.bias = None
    leaf = x.clone().requires_grad_()
    y = forward(leaf)
    dy = torch.randn_like(y)
    y.backward(dy)
    found, expected = ((p.double() * q.double()).sum().item() for p, q in ((leaf, leaf.grad), (y, dy)))
    return abs(found - expected) / (y.double().norm() * dy.double().norm()).item()


@pytest.mark.slow
@pytest.mark.parametrize("reentrant", [False, True], ids=["", "reentrant"])
def test_checkpointing(reentrant: bool) -> None:
    """Recomputation finds the masks and the saved tensors of its forward, before the groups are found and after."""
    model, x = attention(0.5, found=False), inputs()

    def region(leaf: Tensor) -> Tensor:
        return model(leaf * 1)  # the recomputed x is another tensor

    def forward(leaf: Tensor) -> Tensor:
        return checkpoint(region, leaf, use_reentrant=reentrant)

    def each(leaf: Tensor) -> Tensor:
        layers = map(model.get_submodule, SIZES)
        return torch.cat([checkpoint(layer, leaf, use_reentrant=reentrant) for layer in layers], dim=-1)

    for step in range(2):
        passes()
        first = x.clone().requires_grad_()
        y = forward(first)
        assert linear_in_x(model, forward, x) < CLOSE
        y.sum().backward()  # of a forward before another's backward
        assert passes() == (4 if step and not reentrant else 12)
    assert linear_in_x(model, each, x) < CLOSE


@pytest.mark.slow
def test_a_region_may_hold_some_of_the_siblings() -> None:
    """q outside of what is recomputed and k and v within, of the same x: the region recomputes what it had."""
    model, x = attention(), inputs()
    expected = observed(model, x)

    def region(leaf: Tensor) -> Tensor:
        return torch.cat([model.k(leaf).tanh(), model.v(leaf)], dim=-1)

    for _ in range(2):
        leaf = x.clone().requires_grad_()
        y = torch.cat([model.q(leaf), checkpoint(region, leaf, use_reentrant=False)], dim=-1)
        y.sum().backward()
    again = observed(model, x)
    assert all(error(again[name], expected[name]) < CLOSE for name in expected)


@pytest.mark.slow
def test_a_region_may_call_the_siblings_twice() -> None:
    """Whatever is found out within a region, it is recomputed as it was computed."""
    model = attention()

    def region(leaf: Tensor) -> Tensor:
        left = model.q(leaf * 1)  # another x than that of k and v: what is computed for them is left over
        return torch.cat([left, model(leaf * 2)], dim=-1)

    for _ in range(6):
        checkpoint(region, inputs().requires_grad_(), use_reentrant=False).sum().backward()


@pytest.mark.slow
def test_recomputation_may_stop_between_the_siblings() -> None:
    """Non-reentrant checkpointing ends a recomputation at the last tensor it needs: k and v are not asked there."""
    model, x = attention(), inputs()

    def region(leaf: Tensor) -> Tensor:
        leaf = leaf * 1
        q = model.q(leaf)
        squared = q * q
        return torch.cat([squared, model.k(leaf), model.v(leaf)], dim=-1)

    for _ in range(4):
        checkpoint(region, x.clone().requires_grad_(), use_reentrant=False).sum().backward()
    passes()
    region(x)
    assert passes() == 1


@pytest.mark.slow
def test_second_derivatives() -> None:
    """Torch's own operations compute gradients that are to be differentiated again, as of layers alone."""
    model, x = attention(), inputs()
    plain = copy.deepcopy(model)
    found = []
    for one in (model, plain):
        leaf = x.clone().requires_grad_()
        (dx,) = torch.autograd.grad(one(leaf).square().sum(), leaf, create_graph=True)
        found.append(torch.autograd.grad(dx.square().sum(), one.k.lora_a)[0])
    assert error(found[0], found[1]) < 10 * CLOSE


@pytest.mark.slow
def test_compiled_layers_run_alone() -> None:
    """torch.compile finds no group in its way: one graph, the same results, and groups again in eager mode."""
    model, x = attention(), inputs()
    expected = observed(model, x)
    passes()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    leaf = x.clone().requires_grad_()
    y = compiled(leaf)
    assert passes() == 3 and error(y, expected["y"]) < CLOSE
    model(x)
    assert passes() == 1
