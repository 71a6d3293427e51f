"""A layer that another library wraps before or after accelerate: restore still gives PEFT's layer, copies included."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft.tuners.lora import LoraModel
from peft.tuners.lora.layer import Linear
from torch import nn

from kernels.peft import accelerate, restore
from tests.kernels.peft.peft_models import assert_same, config, inputs, observe, stack

pytestmark = pytest.mark.filterwarnings("ignore:.*fan_in_fan_out")


def hook(layer: nn.Module) -> None:
    hooks = pytest.importorskip("accelerate.hooks")
    hooks.add_hook_to_module(layer, hooks.ModelHook())


def hook_put_on_and_off(layer: nn.Module) -> None:
    hooks = pytest.importorskip("accelerate.hooks")
    hooks.add_hook_to_module(layer, hooks.ModelHook())
    hooks.remove_hook_from_module(layer)


def patch(layer: Any) -> None:
    forward = layer.forward

    @functools.wraps(forward)
    def wrapped(*args: Any, **kwargs: Any) -> torch.Tensor:
        return forward(*args, **kwargs)

    layer.forward = wrapped


def capture(layer: Any) -> None:
    """Someone else's list of methods to call."""
    layer.forward = functools.partial(layer.forward)


def compiled(layer: Any) -> None:
    torch._dynamo.reset()
    layer.compile(backend="eager")


WRAPPERS = [
    hook, hook_put_on_and_off, patch, capture, pytest.param(compiled, marks=pytest.mark.slow),
]  # fmt: skip


def use(model: nn.Module) -> list[dict[str, torch.Tensor]]:
    """All that PEFT does with a layer."""
    torch.manual_seed(3)  # of the second adapter
    x = inputs()
    seen = [observe(model, x)]
    with model.disable_adapter():
        seen.append({"output": model(x).detach()})
    model.add_adapter("other", config(r=3))
    model.set_adapter("other")
    seen.append(observe(model, x))
    model.merge_adapter()
    seen.append(observe(model, x))
    model.unmerge_adapter()
    model.set_adapter("default")
    model.delete_adapter("other")
    seen.append(observe(model, x))
    return [*seen, observe(model.merge_and_unload(), x)]


def same_use(ours: nn.Module, theirs: nn.Module) -> None:
    for ours_now, theirs_now in zip(use(ours), use(theirs), strict=True):
        assert_same(ours_now, theirs_now)


def first(model: nn.Module) -> Any:
    return model.base_model.model.first


def both(wrap: Callable[[Any], None], *, before: bool) -> tuple[nn.Module, nn.Module]:
    """The accelerated model and PEFT's own, the first layer of both wrapped."""
    ours, theirs = stack("linear", False), stack("linear", False)
    wrap(first(theirs))
    if before:
        wrap(first(ours))
    accelerate(ours)
    if not before:
        wrap(first(ours))
    return ours, theirs


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("wrap", WRAPPERS)
def test_wrapped(wrap: Callable[[Any], None], before: bool) -> None:
    same_use(*both(wrap, before=before))


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("wrap", WRAPPERS)
def test_restored(wrap: Callable[[Any], None], before: bool, fused: list) -> None:
    ours, theirs = both(wrap, before=before)
    accelerate(ours)
    restore(ours)
    restore(ours)
    assert not any(type(module) not in (Linear, LoraModel) for module in (first(ours), ours.base_model))
    same_use(ours, theirs)
    assert not fused


@pytest.mark.parametrize("wrap", [hook, hook_put_on_and_off])
def test_copied_and_restored(wrap: Callable[[Any], None], fused: list) -> None:
    """The copy's hooks call the copy; restoring one of the two leaves the other accelerated."""
    ours, theirs = both(wrap, before=False)
    twin = copy.deepcopy(ours)
    restore(ours)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.zero_()
    assert_same(observe(twin, inputs()), observe(theirs, inputs()))
    assert len(fused) == 2
    restore(twin)
    same_use(twin, theirs)
    assert len(fused) == 2


def test_a_hook_taken_off_after_restore(fused: list) -> None:
    """It puts the bound forward back as an attribute, which keeps neither PEFT's layer nor accelerate from working."""
    hooks = pytest.importorskip("accelerate.hooks")
    ours, theirs = both(hook, before=False)
    restore(ours)
    hooks.remove_hook_from_module(first(ours))
    assert_same(observe(ours, inputs()), observe(theirs, inputs()))
    assert not fused
    assert len(accelerate(ours).accelerated) == 2
    ours(inputs())
    assert len(fused) == 2
    restore(ours)
    same_use(ours, theirs)


def test_a_method_held_elsewhere(fused: list) -> None:
    ours, theirs = stack("linear", True), stack("linear", False)
    forward, inject = first(ours).forward, ours.base_model.inject_adapter
    restore(ours)
    with ours.disable_adapter(), theirs.disable_adapter():
        assert torch.equal(forward(inputs()), first(theirs)(inputs()))
    ours.peft_config["wider"] = config(target_modules=["rest"])
    inject(ours.base_model.model, "wider")
    assert type(ours.base_model.model.rest) is Linear
    assert not fused


def test_an_adapter_added_to_a_wrapped_tuner(fused: list) -> None:
    """A forward put on the tuner concerns no layer: later adapters find theirs swapped all the same."""
    model = stack("linear", False)
    patch(model.base_model)
    accelerate(model)
    model.add_adapter("wider", config(target_modules=["rest"]))
    model.set_adapter("wider")
    model(inputs())
    assert fused == [(2, 7, 32)]


def test_a_class_derived_from_ours(fused: list) -> None:
    """As fully_shard does: what restore cannot undo it says, and the layer works on."""
    ours, theirs = stack("linear", True), stack("linear", False)
    layer = first(ours)
    layer.__class__ = type("ShardedLinear", (type(layer),), {})
    assert len(accelerate(ours).accelerated) == 2
    with pytest.warns(UserWarning, match=r"base_model\.model\.first \(ShardedLinear\) stays accelerated"):
        restore(ours)
    assert type(ours.base_model.model.second) is Linear
    same_use(ours, theirs)


def test_pefts_own_class_patched(monkeypatch: pytest.MonkeyPatch, fused: list) -> None:
    """A library that replaces the forward of PEFT's class is heard, and the report says so."""
    model = stack("linear", True)
    monkeypatch.setattr(Linear, "forward", lambda self, x: self.base_layer(x) + 1)
    assert torch.equal(first(model)(inputs()), first(model).base_layer(inputs()) + 1)
    assert "was replaced by another library" in accelerate(model).left["base_model.model.first"]
    assert not fused
