"""Hooks and forwards that somebody put on a layer: called as before, or refused by name."""

import copy
from typing import Any

import pytest
import torch
from torch import nn

from kernels.paca import merge_paca, paca, remove_paca
from kernels.paca.model import paca_layers

X = torch.arange(24.0).view(3, 8).sin()
#: how a hook is registered, and one that doubles what passes: output, input, gradient of the output
KINDS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "forward": ("register_forward_hook", lambda m, args, y: 2 * y, {}),
    "forward-kwargs": ("register_forward_hook", lambda m, args, kwargs, y: 2 * y, {"with_kwargs": True}),
    "forward-always": ("register_forward_hook", lambda m, args, y: 2 * y, {"always_call": True}),
    "pre": ("register_forward_pre_hook", lambda m, args: (2 * args[0],), {}),
    "pre-kwargs": ("register_forward_pre_hook", lambda m, args, kw: ((2 * args[0],), kw), {"with_kwargs": True}),
    "backward": ("register_full_backward_hook", lambda m, dx, dy: (2 * dx[0],), {}),
    "backward-pre": ("register_full_backward_pre_hook", lambda m, dy: (2 * dy[0],), {}),
}


def net() -> Any:
    torch.manual_seed(0)
    return nn.ModuleDict({"a": nn.Linear(8, 8)})


def ran(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The output, and the gradient of x."""
    x = X.clone().requires_grad_()
    y = model["a"](x)
    y.square().sum().backward()
    return y.detach(), x.grad


def hooked(layer: Any, kind: str) -> Any:
    register, hook, options = KINDS[kind]
    return getattr(layer, register)(hook, **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("when", ["before", "after", "after-on-the-base", "copied"])
def test_a_hook_is_called_and_its_handle_removes_it(kind: str, when: str) -> None:
    plain = net()
    unhooked = ran(plain)
    hooked(plain["a"], kind)
    expected = ran(plain)
    model = net()
    if when in ("before", "copied"):
        handle = hooked(model["a"], kind)
    paca(model, 2, 4, targets=["a"])
    if when.startswith("after"):
        handle = hooked(model["a"] if when == "after" else model["a"].base, kind)
    if when == "copied":
        model = copy.deepcopy(model)
        assert all(torch.equal(*pair) for pair in zip(ran(model), expected, strict=True))
        return
    assert all(torch.equal(*pair) for pair in zip(ran(model), expected, strict=True))
    assert model["a"].columns.grad is not None
    back = merge_paca(copy.deepcopy(model)) if kind == "pre" else copy.deepcopy(model)
    handle.remove()
    assert all(torch.equal(*pair) for pair in zip(ran(model), unhooked, strict=True))
    assert all(torch.equal(*pair) for pair in zip(ran(back), expected, strict=True)), "a copy keeps its own"


def test_the_plain_layer_has_its_hooks_again() -> None:
    model = net()
    seen: list[str] = []
    handle = model["a"].register_forward_hook(lambda m, args, y: seen.append(type(m).__name__))
    paca(model, 2, 4, targets=["a"])
    model["a"](X)
    remove_paca(model)["a"](X)
    assert seen == ["PaCALinear", "Linear"]
    handle.remove()
    model["a"](X)
    assert len(seen) == 2


def test_the_gradient_of_columns_is_that_behind_the_hooks() -> None:
    """d columns = scale * dY^T x[:, index], of the doubled output."""
    model = net()
    hooked(model["a"], "forward")
    paca(model, 2, 4, targets=["a"])
    layer = model["a"]
    layer(X).sum().backward()
    expected = layer.scale * 2 * torch.ones(8, 3) @ X[:, layer.index]
    torch.testing.assert_close(layer.columns.grad, expected)


@pytest.mark.parametrize("targets", ["all-linear", ["mlp"]], ids=["all-linear", "named"])
def test_a_forward_of_its_own_is_refused_by_name(targets: Any) -> None:
    block = nn.ModuleDict({"mlp": nn.Linear(8, 8), "out": nn.Linear(8, 8)})
    model = nn.ModuleDict({"layers": nn.ModuleList([block])})
    old = block["mlp"].forward
    block["mlp"].forward = lambda x: 2 * old(x)
    with pytest.raises(ValueError, match=r"layers\.0\.mlp has a forward of its own.*take it off before paca\(\)"):
        paca(model, 2, 4, targets=targets)
    assert not paca_layers(model) and all(p.requires_grad for p in model.parameters())


def test_accelerates_hooks_are_refused_before_and_work_after() -> None:
    accelerate = pytest.importorskip("accelerate")

    class Doubles(accelerate.hooks.ModelHook):
        def post_forward(self, module: nn.Module, output: torch.Tensor) -> torch.Tensor:
            return 2 * output

    model = net()
    accelerate.hooks.add_hook_to_module(model["a"], Doubles())
    with pytest.raises(ValueError, match="a has a forward of its own"):
        paca(model, 2, 4, targets=["a"])
    model = paca(net(), 2, 4, targets=["a"])
    accelerate.hooks.add_hook_to_module(model["a"], Doubles())
    assert torch.equal(model["a"](X), 2 * net()["a"](X))


def test_a_device_map_of_several_devices_is_no_obstacle() -> None:
    """accelerate puts a hook on every layer that only moves the inputs to where the layer is."""
    hooks = pytest.importorskip("accelerate").hooks
    model = net()
    hooks.add_hook_to_module(model["a"], hooks.AlignDevicesHook(execution_device="cpu"))
    model = copy.deepcopy(paca(model, 2, 4, targets=["a"]))
    expected = net()["a"](X)
    assert torch.equal(model["a"](X), expected)
    hooks.remove_hook_from_submodules(model)
    assert torch.equal(model["a"](X), expected)


def replica(layer: Any) -> Any:
    """What nn.DataParallel makes of a layer for a device: its tensors are attributes that autograd follows back."""
    one, base = (module._replicate_for_data_parallel() for module in (layer, layer.base))
    base.weight, base.bias = layer.base.weight.clone(), layer.base.bias.clone()
    one._modules["base"], one.columns = base, layer.columns * 1
    return one


def test_a_replica_of_data_parallel_passes_the_gradient_on() -> None:
    model = paca(net(), 2, 4, targets=["a"])
    layer = model["a"]
    outputs = [part(X) for part in (replica(layer), layer)]
    grads = [torch.autograd.grad(y.square().sum(), layer.columns)[0] for y in outputs]
    torch.testing.assert_close(outputs[0], outputs[1])
    torch.testing.assert_close(grads[0], grads[1])


def test_what_the_base_gets_later_is_not_passed_by() -> None:
    model = paca(net(), 2, 4, targets=["a"])
    base = model["a"].base
    base.forward = lambda x: x
    with pytest.raises(RuntimeError, match="a: the forward of its base layer was replaced after paca"):
        model["a"](X)
    del base.forward
    torch.nn.utils.parametrizations.orthogonal(base)
    with pytest.raises(RuntimeError, match="a: the weight of its base layer is computed by now"):
        model["a"](X)
