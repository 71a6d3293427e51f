"""The ways a model is run: dropout, checkpointing, autocast, 16-bit bases, torch.compile."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig
from torch import Tensor, nn
from torch._dynamo.utils import counters

from kernels.peft import accelerate
from tests.kernels.peft.peft_models import (
    FEATURES,
    VOCABULARY,
    Stack,
    assert_same,
    config,
    gpt2,
    inputs,
    llama,
    observe,
    stack,
    tune,
)

KINDS = ["linear", "conv1d"]


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_agrees_in_distribution(kind: str, fused: list) -> None:
    """40,000 masks of the same row: means and variances of what comes out of a layer and of its gradients."""
    rows = 40_000
    lora = config(lora_dropout=0.3)
    x = inputs()[0, :1].expand(rows, FEATURES)
    seen = {}
    for accelerated in (False, True):
        layer = stack(kind, accelerated, copy.deepcopy(lora)).base_model.model.first
        leaf = x.clone().requires_grad_(True)
        y = layer(leaf)
        y.square().sum().backward()
        seen[accelerated] = {"y": y.detach(), "grad of x": leaf.grad}
        seen[accelerated, "A"] = layer.lora_A["default"].weight.grad / rows
    assert fused == [(rows, FEATURES)]
    for name, theirs in seen[False].items():
        ours = seen[True][name]
        deviation = theirs.std(0)
        mean_error = deviation * (2 / rows) ** 0.5  # of a difference of two means
        assert ((ours.mean(0) - theirs.mean(0)).abs() < 5 * mean_error + 1e-5).all(), name
        assert deviation.max() > 0.05, "there is something to compare"
        torch.testing.assert_close(ours.std(0), deviation, rtol=0.05, atol=1e-3)
    scale = seen[False, "A"].abs().max()
    assert (seen[True, "A"] - seen[False, "A"]).abs().max() < 0.03 * scale


def test_dropout_follows_the_seed_and_eval() -> None:
    model = stack("linear", True, config(lora_dropout=0.5))
    outputs = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        outputs.append(model(inputs()))
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])
    model.eval()
    state = torch.get_rng_state()
    theirs = stack("linear", False, config(lora_dropout=0.5)).eval()
    torch.testing.assert_close(model(inputs()), theirs(inputs()))
    torch.set_rng_state(state)
    model(inputs())
    assert torch.equal(torch.get_rng_state(), state), "eval draws nothing"


def tokens() -> dict[str, Tensor]:
    ids = torch.randint(VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(2))
    return {"input_ids": ids, "labels": ids}


def language_model(make, accelerated: bool, **options) -> nn.Module:
    torch.manual_seed(0)
    base = make()
    lora = LoraConfig(target_modules="all-linear", task_type="CAUSAL_LM", r=4, init_lora_weights=False, **options)
    lora.fan_in_fan_out = make is gpt2
    return tune(base, accelerated, lora)


def gradients(model: nn.Module, seed: int = 8) -> dict[str, Tensor]:
    model.zero_grad()
    torch.manual_seed(seed)
    loss = model(**tokens()).loss
    loss.backward()
    return {"loss": loss.detach()} | {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("reentrant", [False, True], ids=["", "reentrant"])
@pytest.mark.parametrize("make", [gpt2, llama])
@pytest.mark.filterwarnings("ignore")
def test_gradient_checkpointing(make, reentrant: bool, fused: list) -> None:
    """The recomputed forward drops what the first one dropped: the gradients are those without checkpointing."""
    model = language_model(make, True, lora_dropout=0.4).train()
    kept = gradients(model)
    calls = len(fused)
    assert not torch.equal(gradients(model, seed=9)["loss"], kept["loss"]), "dropout acts"
    fused.clear()
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    recomputed = gradients(model)
    assert len(fused) == 2 * calls, "every layer ran twice"
    assert_same(recomputed, kept)


@pytest.mark.parametrize("make", [gpt2, llama])
@pytest.mark.filterwarnings("ignore")
def test_language_models(make, fused: list) -> None:
    theirs, ours = (gradients(language_model(make, accelerated)) for accelerated in (False, True))
    assert len(fused) == (8 if make is gpt2 else 14)
    assert_same(ours, theirs)


Seen = dict[str, Tensor]


def close_in_16_bit(ours: Seen, theirs: Seen, exact: Seen, rounded: Seen | None = None) -> None:
    """Names and dtypes of theirs; the distance to float32 at most 1.5 times that of `rounded`, by default theirs."""
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert ours[name].dtype == value.dtype, name
        norm = exact[name].norm()
        allowed = 1.5 * ((rounded or theirs)[name].float() - exact[name]).norm() / norm + 2e-3
        assert (ours[name].float() - exact[name]).norm() / norm < allowed, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(kind: str, dtype: torch.dtype, fused: list) -> None:
    exact = observe(stack(kind, False), inputs())
    seen = []
    for accelerated in (False, True):
        model = stack(kind, accelerated)
        with torch.autocast("cpu", dtype=dtype):
            assert model(inputs()).dtype == dtype
            seen.append(observe(model, inputs()))
    assert len(fused) == 4
    close_in_16_bit(seen[1], seen[0], exact)


@pytest.mark.parametrize("promoted", [True, False], ids=["fp32-adapter", "bf16-adapter"])
@pytest.mark.parametrize("kind", KINDS)
def test_bf16_base(kind: str, promoted: bool, fused: list) -> None:
    """PEFT promotes adapters to fp32 over a 16-bit base unless told not to: output in bf16, their gradients in fp32."""

    def tuned(accelerated: bool, dtype: torch.dtype, promoted: bool) -> nn.Module:
        torch.manual_seed(0)
        lora = config(fan_in_fan_out=kind == "conv1d")
        model = tune(Stack(kind).bfloat16().to(dtype), False, lora, autocast_adapter_dtype=promoted)
        for name, parameter in model.named_parameters():  # values that bf16 holds
            if "lora_" in name:
                parameter.data = parameter.data.bfloat16().to(parameter.dtype)
        if accelerated:
            accelerate(model)
        return model

    x = inputs().bfloat16()
    exact = observe(tuned(False, torch.float32, True), x.float())
    # Adapters are rounded to bf16 inside, so PEFT with bf16 adapters is what the distance is held to.
    unpromoted = observe(tuned(False, torch.bfloat16, False), x)
    theirs, ours = (observe(tuned(accelerated, torch.bfloat16, promoted), x) for accelerated in (False, True))
    assert len(fused) == 2
    assert ours["base_model.model.first.lora_A.default.weight"].dtype == (torch.float32 if promoted else torch.bfloat16)
    close_in_16_bit(ours, theirs, exact, unpromoted)


def test_dtypes_that_do_not_fit_go_to_peft(fused: list) -> None:
    """x of another dtype than the base: PEFT's error. An adapter of fewer bits than the base: PEFT's result."""
    theirs, ours = stack("linear", False), stack("linear", True)
    errors = []
    for model in (theirs, ours):
        with pytest.raises(RuntimeError) as raised:
            model(inputs().double())
        errors.append(str(raised.value))
    assert errors[0] == errors[1]
    for model in (theirs, ours):
        model.base_model.model.first.lora_A.bfloat16()
        model.base_model.model.first.lora_B.bfloat16()
    fused.clear()
    assert_same(observe(ours, inputs()), observe(theirs, inputs()), rtol=0, atol=0)
    assert fused == [(2, 7, 40)]


def test_tensors_of_other_classes_go_to_peft(fused: list) -> None:
    class Marked(Tensor):
        pass

    model = stack("linear", True)
    y = model(inputs().as_subclass(Marked))
    assert isinstance(y, Marked) and not fused


def test_tensors_without_storage_go_to_peft(fused: list) -> None:
    """Under torch.func's transforms, and on the meta device."""
    theirs, ours = stack("linear", False), stack("linear", True)
    x = torch.stack([inputs(), 2 * inputs()])
    assert torch.equal(torch.func.vmap(ours)(x), torch.func.vmap(theirs)(x))
    moved, expected = (torch.func.jvp(model, (inputs(),), (2 * inputs(),)) for model in (ours, theirs))
    assert torch.equal(torch.stack(moved), torch.stack(expected))
    assert ours.to("meta")(inputs().to("meta")).shape == theirs(inputs()).shape
    assert not fused


def test_a_default_device_keeps_the_kernels(fused: list) -> None:
    """torch.set_default_device listens to torch's functions as a mode, but asks for nothing that PEFT's forward has."""
    model = stack("linear", True)
    with torch.device("cpu"):
        model(inputs())
    assert len(fused) == 2


def test_hooks_on_all_modules_are_heard_while_they_are_there(fused: list) -> None:
    model = stack("linear", True)
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    model(inputs())
    handle.remove()
    assert not fused
    model(inputs())
    assert len(fused) == 2


@pytest.mark.parametrize("module", ["base_layer", "lora_A", "lora_B", "lora_dropout"])
def test_hooks_are_heard(module: str, fused: list) -> None:
    model = stack("linear", True)
    layer = model.base_model.model.first
    inner = layer.base_layer if module == "base_layer" else getattr(layer, module)["default"]
    heard = []
    handle = inner.register_forward_hook(lambda *_: heard.append(1))
    model(inputs())
    assert heard == [1] and fused == [(2, 7, 40)]
    handle.remove()
    model(inputs())
    assert heard == [1] and len(fused) == 3


COMPILED = [
    pytest.param("aot_eager", gpt2, id="aot_eager-gpt2", marks=pytest.mark.slow),
    pytest.param("aot_eager", llama, id="aot_eager-llama", marks=pytest.mark.slow),
    pytest.param("inductor", gpt2, id="inductor-gpt2", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("backend", "make"), COMPILED)
@pytest.mark.filterwarnings("ignore")
def test_compiled(backend: str, make) -> None:
    """No graph break that PEFT's own model has not, and the gradients of the model run eagerly."""
    breaks = {}
    for accelerated in (False, True):
        torch._dynamo.reset()
        counters.clear()
        model = language_model(make, accelerated)
        compiled = torch.compile(model, backend=backend)
        got = gradients(compiled)
        breaks[accelerated] = dict(counters["graph_break"])
        assert counters["stats"]["calls_captured"] > 0
        if accelerated:
            expected = gradients(model)
            assert_same({name.removeprefix("_orig_mod."): value for name, value in got.items()}, expected)
    torch._dynamo.reset()
    assert breaks[True] == breaks[False]


@pytest.mark.filterwarnings("ignore")
def test_compiled_layer_with_dropout_is_one_graph() -> None:
    torch._dynamo.reset()
    layer = stack("conv1d", True, config(lora_dropout=0.5)).base_model.model.first
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = inputs().requires_grad_(True)
    first, second = compiled(x), compiled(x)
    assert not torch.equal(first, second), "another mask each call"
    second.sum().backward()
    assert layer.lora_A["default"].weight.grad is not None
    layer.eval()
    torch.testing.assert_close(compiled(x), layer(x))
    torch._dynamo.reset()
