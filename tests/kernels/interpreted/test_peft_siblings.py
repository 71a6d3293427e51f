"""accelerate with groups of siblings: PEFT's results in whole models, and every way out of a group."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from kernels.runtime import launch

pytest.importorskip("peft")

from kernels.peft import accelerate, restore
from tests.kernels.interpreted.test_fused_peft import coarse_tiles  # noqa: F401
from tests.kernels.peft.peft_models import assert_same, config, llama, observe, tune

pytestmark = pytest.mark.filterwarnings("ignore")

SIZES = {"q": 24, "k": 16, "v": 16}


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name, n in SIZES.items():
            self.add_module(name, nn.Linear(24, n, bias=name == "k"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.q(x), self.k(x), self.v(x)], dim=-1)


def inputs() -> torch.Tensor:
    return torch.randn(2, 7, 24, generator=torch.Generator().manual_seed(5))


def attention(accelerated: bool, **options) -> nn.Module:
    torch.manual_seed(0)
    return tune(Attention(), accelerated, config(**{"target_modules": list(SIZES), **options}))


def passes() -> int:
    """Passes over x since the last call: one of a group, one of each layer that ran alone."""
    count = launch.counts["project_kernel"] + launch.counts["single_pass_kernel"]
    launch.counts.clear()
    return count


def test_groups_equal_peft() -> None:
    ours, theirs = attention(True), attention(False)
    for expected in (3, 1, 1):
        seen = observe(ours, inputs())
        assert passes() == expected
        assert_same(seen, observe(theirs, inputs()))


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [None, False, True], ids=["", "checkpointing", "reentrant"])
def test_a_model_trains_as_peft_trains_it(checkpointing: bool | None) -> None:
    """Loss and gradients of steps of SGD, of two batches each, with and without recomputation."""
    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    torch.manual_seed(0)
    base = llama()
    theirs = tune(copy.deepcopy(base), False, config(target_modules=targets))
    ours = tune(base, True, config(target_modules=targets))
    for model in (ours, theirs):
        if checkpointing is not None:
            model.enable_input_require_grads()
            model.gradient_checkpointing_enable({"use_reentrant": checkpointing})
        model.train()
    ids = torch.arange(20).reshape(2, 10)
    for step in range(3):
        passes()
        seen = []
        for model in (ours, theirs):
            losses = [model(input_ids=one[None], labels=one[None]).loss for one in ids]
            sum(losses).backward()
            gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
            seen.append({"loss": sum(losses).detach()} | gradients)
            with torch.no_grad():
                for parameter in model.parameters():
                    if parameter.grad is not None:
                        parameter -= 0.1 * parameter.grad
                        parameter.grad = None
        assert_same(*seen, rtol=1e-3, atol=1e-5)
        if step == 2:
            assert passes() == (32 if checkpointing is None else 64) // 2, "4 of 7 in each block and batch"


def test_every_way_out() -> None:
    """Disabled, merged, switched and deleted adapters, hooks on a base layer, restore: PEFT's results, and no group
    that does not fit; a group again where it fits again."""
    ours, theirs = attention(True), attention(False)
    x = inputs()
    ours(x)
    ours(x)
    for model in (ours, theirs):
        torch.manual_seed(3)
        model.add_adapter("other", config(target_modules=["q", "v"], r=2, lora_alpha=8))

    def same(expected: int) -> None:
        passes()
        with torch.no_grad():
            torch.testing.assert_close(ours(x), theirs(x))
        assert passes() == expected

    same(1)
    with ours.disable_adapter(), theirs.disable_adapter():
        same(0)
    for model in (ours, theirs):
        model.set_adapter("other")
    same(2)
    for model in (ours, theirs):
        model.set_adapter("default")
    same(1)
    ours.base_model.model.k.merge()
    same(2)
    ours.base_model.model.k.unmerge()
    hook = ours.base_model.model.v.base_layer.register_forward_hook(lambda *_: None)
    same(2)
    hook.remove()
    same(1)
    ours.base_model.model.q.scaling["default"] = theirs.base_model.model.q.scaling["default"] = 0.25
    same(3)
    restore(ours)
    same(0)
    assert "siblings" not in ours.base_model.model.q.__dict__


def test_adapters_that_come_later_have_siblings() -> None:
    model = attention(True, target_modules=["v"])
    model(inputs())
    model.add_adapter("all", config(target_modules=list(SIZES)))
    model.set_adapter("all")
    model(inputs())
    passes()
    model(inputs())
    assert passes() == 1


@pytest.mark.slow
def test_copies_and_pickles() -> None:
    """A copy finds its own siblings; a pickle is PEFT's, and finds them once it is accelerated."""
    model, x = attention(True), inputs()
    expected = model(x)
    model(x)
    copied, written = copy.deepcopy(model), pickle.dumps(model)
    assert b"kernels.lora" not in written
    loaded = pickle.loads(written)
    torch.testing.assert_close(loaded(x), expected)
    accelerate(loaded)
    for other in (copied, loaded):
        other(x)
        passes()
        torch.testing.assert_close(other(x), expected)
        assert passes() == 1


def test_watched_calls_see_pefts_layers() -> None:
    """Hooks on all modules, and counters of operations, hear PEFT's own forward of each sibling."""
    from torch.utils.flop_counter import FlopCounterMode

    model, x = attention(True), inputs()
    model(x)
    passes()
    with FlopCounterMode(display=False) as counter:
        model(x)
    assert counter.get_total_flops() == 2 * 14 * sum(24 * n + 4 * (24 + n) for n in SIZES.values())
    heard = []
    hook = nn.modules.module.register_module_forward_hook(lambda module, *_: heard.append(type(module)))
    model(x)
    hook.remove()
    assert heard.count(nn.Linear) == 9 and passes() == 0


@pytest.mark.parametrize("sees_fused_layers", [True, False])
def test_a_mode_that_asks_for_fused_layers_sees_what_runs_without_it(sees_fused_layers: bool) -> None:
    from torch.utils._python_dispatch import TorchDispatchMode

    class Looks(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    looks = Looks()
    looks.sees_fused_layers = sees_fused_layers
    model, x = attention(True), inputs()
    model(x)
    passes()
    with looks:
        model(x)
    assert passes() == sees_fused_layers
