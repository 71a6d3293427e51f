"""What accelerate says it did and left, how restore undoes it, and what it answers to wrong use."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from peft import IA3Config, LoKrConfig, LoraConfig, PromptTuningConfig, get_peft_model
from peft.tuners.lora import LoraModel
from peft.tuners.lora.dora import DoraLinearLayer
from peft.tuners.lora.layer import Linear
from torch import nn

from kernels.peft import accelerate, restore
from tests.kernels.peft.peft_models import Stack, assert_same, config, gpt2, inputs, observe, stack

FIRST = "base_model.model.first"


def reason(model: nn.Module, name: str = FIRST) -> str:
    return accelerate(model).left[name]


def test_all_of_them() -> None:
    report = accelerate(stack("linear", False))
    assert report.accelerated == (FIRST, "base_model.model.second")
    assert not report.left
    assert str(report) == "accelerated 2 of 2 adapted layers"


def test_groups_and_counts() -> None:
    base = nn.ModuleDict({f"layer{i}": nn.Linear(8, 8) for i in range(6)} | {"other": nn.Linear(8, 8)})
    lora = LoraConfig(target_modules="layer.*", use_dora=True, lora_dropout=0.1, modules_to_save=["other"])
    model = get_peft_model(base, lora)
    text = str(accelerate(model))
    assert text.splitlines() == [
        "accelerated 0 of 7 adapted layers",
        "left to PEFT:",
        "  6 x for now: DoRA with dropout, which takes a second product with the weight; in eval mode it is served: "
        "base_model.model.layer0, base_model.model.layer1, base_model.model.layer2 and 3 more",
        "  1 x modules_to_save: base_model.model.other",
    ]
    assert repr(accelerate(model)) == text
    assert str(accelerate(model.eval())).startswith("accelerated 6 of 7 adapted layers")


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
def test_dora_drops_by_peft_and_is_served_in_eval_mode(kind: str, fused: list) -> None:
    seen = []
    for accelerated in (False, True):
        model = stack(kind, accelerated, config(use_dora=True, lora_dropout=0.5))
        torch.manual_seed(3)
        seen.append(observe(model, inputs()))
    assert not fused
    assert_same(seen[1], seen[0], rtol=0, atol=0)
    before = observe(model.eval(), inputs())
    assert len(fused) == 2
    restore(model)
    fused.clear()
    assert_same(before, observe(model, inputs()))
    assert not fused


class Own(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + 1


class Other(DoraLinearLayer):
    """A derived class may have a forward of its own."""


class OwnDropout(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def two_active(model: nn.Module) -> None:
    model.add_adapter("other", config())
    model.base_model.set_adapter(["default", "other"])


def layer_of(model: nn.Module) -> Linear:
    return model.base_model.model.first


CASES = {
    "hooks on its DoRA layer": (
        config(use_dora=True),
        lambda model: layer_of(model).lora_magnitude_vector["default"].register_forward_hook(lambda *_: None),
    ),
    "its magnitude is that of a Other": (
        config(use_dora=True),
        lambda model: setattr(layer_of(model).lora_magnitude_vector["default"], "__class__", Other),
    ),
    "magnitude in torch.float64 over a base in torch.float32": (
        config(use_dora=True),
        lambda model: layer_of(model).lora_magnitude_vector.double(),
    ),
    "LoRA variant ALora": (config(alora_invocation_tokens=[1]), None),
    "lora_bias": (config(lora_bias=True), None),
    "for now: several adapters are active (default, other)": (config(), two_active),
    "for now: the adapter is merged": (config(), lambda model: model.merge_adapter()),
    "for now: the adapters are disabled": (config(), lambda model: model.base_model.disable_adapter_layers()),
    "for now: none is active": (config(), lambda model: layer_of(model).set_adapter([])),
    "dropout by OwnDropout, not nn.Dropout": (
        config(),
        lambda model: layer_of(model).lora_dropout.update({"default": OwnDropout()}),
    ),
    "adapter in torch.bfloat16 over a base in torch.float32": (
        config(),
        lambda model: (layer_of(model).lora_A.bfloat16(), layer_of(model).lora_B.bfloat16()),
    ),
    "hooks on its base layer": (
        config(),
        lambda model: layer_of(model).base_layer.register_forward_hook(lambda *_: None),
    ),
    "its scaling is a Tensor": (config(), lambda model: layer_of(model).scaling.update(default=torch.tensor(2.0))),
    "its base is a Own, with a forward of its own": (
        config(),
        lambda model: setattr(layer_of(model), "base_layer", Own(24, 40)),
    ),
    "computed": (
        config(),
        lambda model: nn.utils.parametrizations.weight_norm(layer_of(model).base_layer, dim=0),
    ),
    "LoRA over a single parameter": (config(target_modules=[], target_parameters=["first.weight"]), None),
    "its forward was replaced": (config(), lambda model: setattr(layer_of(model), "forward", lambda x: x)),
}


@pytest.mark.parametrize("words", CASES)
@pytest.mark.filterwarnings("ignore")
def test_reasons(words: str, fused: list) -> None:
    """Each is told, and the layer's forward is PEFT's: swapped or not, the output is the same."""
    lora, change = CASES[words]
    model = get_peft_model(Stack("linear"), lora)
    if change is not None:
        change(model)
    x = inputs()
    theirs = None if "replaced" in words or "bfloat16" in words else layer_of(model)(x)
    assert words in reason(model)
    fused.clear()
    if theirs is not None:
        assert torch.equal(layer_of(model)(x), theirs)
        assert not fused


@pytest.mark.filterwarnings("ignore")
def test_what_is_no_lora_linear() -> None:
    mixed = nn.ModuleDict({
        "embedding": nn.Embedding(8, 8), "conv": nn.Conv2d(4, 4, 3), "attention": nn.MultiheadAttention(8, 2),
        "linear": nn.Linear(8, 8),
    })  # fmt: skip
    report = accelerate(get_peft_model(mixed, LoraConfig(target_modules=list(mixed))))
    assert report.accelerated == ("base_model.model.linear",)
    reasons = {name.removeprefix("base_model.model."): words for name, words in report.left.items()}
    assert reasons["embedding"] == "LoRA over Embedding, not over nn.Linear or Conv1D"
    assert reasons["conv"] == "LoRA over Conv2d, not over nn.Linear or Conv1D"
    assert reasons["attention"] == "LoRA over MultiheadAttention, not over nn.Linear or Conv1D"
    lokr = accelerate(get_peft_model(Stack("linear"), LoKrConfig(target_modules=["first"])))
    assert lokr.left == {FIRST: "Linear of lokr.layer, not LoRA's own layer"}
    ia3 = get_peft_model(Stack("linear"), IA3Config(target_modules=["first"], feedforward_modules=[]))
    assert accelerate(ia3).left == {FIRST: "Linear of ia3.layer, not LoRA's own layer"}


def test_quantised_base_is_named() -> None:
    """bitsandbytes is not needed for the words: a layer class that lives where PEFT keeps its own."""
    model = stack("linear", False)
    quantised = type("Linear4bit", (Linear,), {"__module__": "peft.tuners.lora.bnb"})
    layer_of(model).__class__ = quantised
    assert reason(model) == "quantised base (Linear4bit)"
    assert type(layer_of(model)) is quantised


def test_restore() -> None:
    model = stack("linear", False)
    before = observe(model, inputs())
    state = {name: value.clone() for name, value in model.state_dict().items()}
    printed = repr(model)
    accelerate(model)
    accelerate(model)
    assert repr(model) == printed
    assert type(layer_of(model)) is not Linear and isinstance(layer_of(model), Linear)
    restore(model)
    restore(model)
    assert type(layer_of(model)) is Linear and type(model.base_model) is LoraModel
    assert "forward" not in layer_of(model).__dict__
    assert_same(observe(model, inputs()), before, rtol=0, atol=0)
    assert_same(model.state_dict(), state, rtol=0, atol=0)


def test_wrong_use() -> None:
    with pytest.raises(ValueError, match="GPT2LMHeadModel without PEFT layers, expected what get_peft_model returns"):
        accelerate(gpt2())
    prompt = get_peft_model(gpt2(), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(ValueError, match="without PEFT layers"):
        accelerate(prompt)
    with pytest.raises(TypeError, match="model is a str, expected a PEFT model"):
        accelerate("model")  # type: ignore[arg-type]


def test_without_peft() -> None:
    code = (
        "import sys; sys.modules['peft'] = None\n"
        "from kernels.peft import accelerate, restore\n"
        "import torch\n"
        "for function in (accelerate, restore):\n"
        "    try: function(torch.nn.Linear(2, 2))\n"
        "    except ImportError as error: assert \"pip install 'lorabench[peft]'\" in str(error), error\n"
        "    else: raise SystemExit('no ImportError')\n"
        "from kernels.peft import paca\n"
        "assert paca(torch.nn.ModuleDict({'a': torch.nn.Linear(8, 8)}), 2, 4, targets=['a'])\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_importing_needs_neither_torch_nor_peft() -> None:
    code = "import sys; import kernels.peft; assert not {'torch', 'peft'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
