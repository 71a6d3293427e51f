"""What PEFT's own tests ask of LoRA over nn.Linear and Conv1D holds for the accelerated model: the same outputs and
gradients with and without accelerate, after the same operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
import transformers
from peft import PeftModel, get_peft_model_state_dict
from peft.helpers import rescale_adapter_scale
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn

from kernels.peft import accelerate
from tests.kernels.peft.peft_models import Stack, assert_same, config, inputs, observe, stack, tune

Seen = Iterator[dict[str, Tensor]]
KINDS = ["linear", "conv1d"]


def draw(model: nn.Module, adapter: str) -> None:
    """A and B of an added adapter, by name, so that they do not depend on the order of creation."""
    generator = torch.Generator().manual_seed(9)
    for name, parameter in model.named_parameters():
        if f".{adapter}." in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)


def plain(model: nn.Module, x: Tensor) -> Seen:
    yield observe(model, x)
    yield observe(model.eval(), x[0])
    yield observe(model, x[0, 0])


def merging(model: nn.Module, x: Tensor) -> Seen:
    model.merge_adapter()
    yield observe(model, x)
    model.unmerge_adapter()
    yield observe(model, x)
    model.merge_adapter(safe_merge=True)
    yield observe(model, x)
    with model.disable_adapter():  # PEFT unmerges inside
        yield {"output": model(x).detach()}
    yield observe(model, x)


def merged_for_good(model: nn.Module, x: Tensor) -> Seen:
    merged = model.merge_and_unload()
    assert not any(isinstance(module, Linear) for module in merged.modules())
    yield observe(merged, x)


def unloaded(model: nn.Module, x: Tensor) -> Seen:
    yield observe(model.unload(), x)


def disabling(model: nn.Module, x: Tensor) -> Seen:
    with model.disable_adapter():
        yield {"output": model(x).detach()}
    yield observe(model, x)
    model.base_model.disable_adapter_layers()
    yield {"output": model(x).detach()}
    model.base_model.enable_adapter_layers()
    yield observe(model, x)


def switching(model: nn.Module, x: Tensor) -> Seen:
    model.add_adapter("other", config(r=3, lora_alpha=5, fan_in_fan_out=model.peft_config["default"].fan_in_fan_out))
    draw(model, "other")
    yield observe(model, x)
    model.set_adapter("other")
    yield observe(model, x)
    model.base_model.set_adapter(["default", "other"])
    yield observe(model, x)
    model.merge_adapter(["other"])
    yield observe(model, x)
    model.unmerge_adapter()
    model.delete_adapter("other")
    yield observe(model, x)


def other_layers_later(model: nn.Module, x: Tensor) -> Seen:
    model.add_adapter("wider", config(target_modules=["second", "rest"], fan_in_fan_out=False))
    draw(model, "wider")
    model.set_adapter("wider")
    yield observe(model, x)
    model.set_adapter("default")  # `rest` has no adapter of this name
    yield observe(model, x)


def weighted(model: nn.Module, x: Tensor) -> Seen:
    model.add_adapter("other", config(r=4, fan_in_fan_out=model.peft_config["default"].fan_in_fan_out))
    draw(model, "other")
    model.add_weighted_adapter(["default", "other"], [0.3, 0.7], "both", combination_type="cat")
    model.set_adapter("both")
    yield observe(model, x)


def scaling(model: nn.Module, x: Tensor) -> Seen:
    with rescale_adapter_scale(model, 0.5):
        yield observe(model, x)
    yield observe(model, x)


def mixed_batch(model: nn.Module, x: Tensor) -> Seen:
    model.add_adapter("other", config(r=3, fan_in_fan_out=model.peft_config["default"].fan_in_fan_out))
    draw(model, "other")
    model.eval()
    yield {"output": model(x, adapter_names=["default", "other"]).detach()}
    yield {"output": model(x, adapter_names=["__base__", "other"]).detach()}
    yield observe(model, x)


def frozen_a(model: nn.Module, x: Tensor) -> Seen:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_B" in name)
    seen = observe(model, x)
    assert "lora_B" in str(list(seen)) and "lora_A" not in str(list(seen))
    yield seen


def frozen_b(model: nn.Module, x: Tensor) -> Seen:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_A" in name)
    seen = observe(model, x)
    assert "lora_A" in str(list(seen)) and "lora_B" not in str(list(seen))
    yield seen


def everything_trains(model: nn.Module, x: Tensor) -> Seen:
    model.requires_grad_(True)
    seen = observe(model, x)
    assert "base_layer.weight" in str(list(seen))
    yield seen


def stepping(model: nn.Module, x: Tensor) -> Seen:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    for _ in range(3):
        yield observe(model, x)
        optimizer.step()


SCENARIOS: dict[str, tuple[Callable[[nn.Module, Tensor], Seen], dict]] = {
    scenario.__name__: (scenario, {})
    for scenario in (
        plain, merging, merged_for_good, unloaded, disabling, switching, other_layers_later, weighted, scaling,
        mixed_batch, frozen_a, frozen_b, everything_trains, stepping,
    )
}  # fmt: skip
OPTIONS = {
    "rank_pattern": {"rank_pattern": {"second": 7}},
    "alpha_pattern": {"alpha_pattern": {"first": 1, "second": 31}},
    "rslora": {"use_rslora": True},
    "one_target": {"target_modules": ["second"]},
    "modules_to_save": {"modules_to_save": ["rest"]},
    "bias_all": {"bias": "all"},
    "bias_lora_only": {"bias": "lora_only"},
    "zero_b": {"init_lora_weights": True},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "dora": {"use_dora": True},
    "lora_bias": {"lora_bias": True},
}
SCENARIOS |= {name: (stepping, options) for name, options in OPTIONS.items()}
MERGED_TOO = ("rank_pattern", "rslora", "modules_to_save", "dora")
SCENARIOS |= {f"{name}_merging": (merging, OPTIONS[name]) for name in MERGED_TOO}
SCENARIOS |= {
    f"dora_{scenario.__name__}": (scenario, OPTIONS["dora"])
    for scenario in (plain, disabling, scaling, frozen_a, frozen_b, everything_trains)
}
SCENARIOS["dora_of_rslora"] = (stepping, {"use_dora": True, "use_rslora": True, "bias": "all"})

# Scenarios in which every call belongs to PEFT.
BY_PEFT = {"lora_bias", "merged_for_good", "unloaded"}


# PEFT has no OLoRA over Conv1D.
CASES = [(kind, name) for name in SCENARIOS for kind in KINDS if (kind, name) != ("conv1d", "olora")]


@pytest.mark.parametrize(("kind", "name"), CASES, ids=["-".join(case) for case in CASES])
@pytest.mark.filterwarnings("ignore")
def test_same_as_peft(kind: str, name: str, fused: list) -> None:
    scenario, options = SCENARIOS[name]
    theirs = list(scenario(stack(kind, False, config(**options)), inputs()))
    assert not fused, "the model to compare with was accelerated"
    ours = list(scenario(stack(kind, True, config(**options)), inputs()))
    assert len(ours) == len(theirs) > 0
    for ours_now, theirs_now in zip(ours, theirs, strict=True):
        assert_same(ours_now, theirs_now)
    assert bool(fused) == (name not in BY_PEFT), f"{len(fused)} fused calls"


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_is_fused(kind: str, fused: list) -> None:
    model = stack(kind, True)
    model(inputs())
    assert fused == [(2, 7, 24), (2, 7, 40)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")
def test_save_and_load(kind: str, fused: list, tmp_path) -> None:
    theirs, ours = (stack(kind, accelerated, config(modules_to_save=["rest"])) for accelerated in (False, True))
    for key, value in get_peft_model_state_dict(theirs).items():
        assert torch.equal(get_peft_model_state_dict(ours)[key], value)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [n for n, p in ours.named_parameters() if p.requires_grad] == [
        n for n, p in theirs.named_parameters() if p.requires_grad
    ]
    ours.save_pretrained(tmp_path)
    torch.manual_seed(0)
    loaded = PeftModel.from_pretrained(Stack(kind), tmp_path, is_trainable=True)
    accelerate(loaded)
    assert_same(observe(loaded, inputs()), observe(theirs, inputs()))
    ours.load_adapter(tmp_path, "again", low_cpu_mem_usage=True)
    ours.set_adapter("again")
    fused.clear()
    assert_same({"output": ours(inputs()).detach()}, {"output": theirs(inputs()).detach()})
    assert len(fused) == 2


def test_layers_of_a_later_adapter_are_fused(fused: list) -> None:
    model = stack("linear", True)
    model.add_adapter("wider", config(target_modules=["rest"]))
    model.set_adapter("wider")
    model(inputs())
    assert fused == [(2, 7, 32)], "first and second have no adapter of that name"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("bias", [False, True])
def test_falcon(bias: bool, fused: list) -> None:
    """Its FalconLinear writes x W^T + b in words of its own. A subclass that inherits nn.Linear's forward is served."""
    seen = []
    for accelerated in (False, True):
        torch.manual_seed(0)
        sizes = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
        falcon = transformers.FalconModel(transformers.FalconConfig(**sizes, bias=bias))
        falcon.h[0].mlp.dense_h_to_4h.__class__ = type("Inherits", (nn.Linear,), {})
        model = tune(falcon, False, config(target_modules="all-linear"))
        if accelerated:
            assert str(accelerate(model)) == "accelerated 4 of 4 adapted layers"
        model.zero_grad()
        y = model(input_ids=torch.arange(10)[None]).last_hidden_state
        y.square().sum().backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        seen.append({"output": y.detach()} | gradients)
    assert len(fused) == 4
    assert_same(seen[1], seen[0])


def test_a_subclass_with_words_of_its_own_is_left(fused: list) -> None:
    """However it is called: only transformers' own FalconLinear is known."""

    class FalconLinear(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 3 * super().forward(x)

    seen = []
    for accelerated in (False, True):
        model = stack("linear", False)
        model.base_model.model.first.base_layer.__class__ = FalconLinear
        if accelerated:
            report = accelerate(model)
            assert report.left["base_model.model.first"] == "its base is a FalconLinear, with a forward of its own"
        seen.append(observe(model, inputs()))
    assert len(fused) == 1
    assert_same(seen[1], seen[0])
