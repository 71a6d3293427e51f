"""The correctness gate: right implementations pass, and every fault that is planted is found, with its tensor named."""

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.case import Case
from bench.measure.gate import SHARE, check, finite
from bench.measure.twin import draw_b, reference, yardstick
from bench.measure.verdict import GateResult
from bench.methods.paca_eager import EagerPaCALinear, seed_of
from bench.methods.places import adapt, trained
from bench.methods.registry import IMPLS, Impl
from bench.models import build
from kernels import LoRALinear, PaCALinear
from tests.models.tiny import GPT2, LLAMA, make_case, write_config

FIELDS = {"gpt2": GPT2, "llama": LLAMA}
LAYERS = {"gpt2": "mlp.c_proj", "llama": "mlp.down_proj"}  # a Conv1D with bias, an nn.Linear without
THIRD = {"rank": 4, "alpha": 4 / 3}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """The tensors are small: on a busy machine more threads only wait for one another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("models")
    return {family: write_config(folder, fields) for family, fields in FIELDS.items()}


def _case(models: dict[str, str], family: str, method: str, level: str, **axes: Any) -> Case:
    axes = {"layer": LAYERS[family] if level == "linear" else None, "seq": 16, **axes}
    return make_case(models[family], method, level, **axes)


# --- what is right passes


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "amp-bf16", "amp-fp16"])
@pytest.mark.parametrize("method", ["full", "lora", "paca"])
@pytest.mark.parametrize("level", ["linear", "block", "model"])
@pytest.mark.parametrize("family", FIELDS)
def test_eager_passes(models: dict[str, str], family: str, level: str, method: str, precision: str) -> None:
    more: dict[str, Any] = {"dropout": 0.1} if method == "lora" else {}
    for seed in (0, 7):
        result = check(_case(models, family, method, level, precision=precision, **more), "cpu", seed)
        assert result.passed, result.detail
        assert result.error <= result.bound and result.detail.startswith(result.tensor)


@pytest.mark.parametrize(
    "axes",
    [
        {"method": "lora", "adapter_dtype": "fp32", "precision": "bf16"},
        {"method": "paca", "adapter_dtype": "fp32", "precision": "bf16"},
        {"method": "lora", "targets": "c_proj", "trainable_layers": "upper-1/2"},
        {"method": "paca", "trainable_layers": "1"},
        {"method": "full", "trainable_layers": "3"},
        {"method": "lora", **THIRD, "dropout": 0.5},
        {"method": "lora", "seq": 1, "batch": 1},
    ],
    ids=str,
)
def test_eager_passes_on_other_axes(models: dict[str, str], axes: dict[str, Any]) -> None:
    result = check(_case(models, "gpt2", level="model", **axes), "cpu")
    assert result.passed, result.detail


def test_what_is_compared(models: dict[str, str]) -> None:
    """Every gradient by name at levels linear and block, by kind at level model, as built, stepped, and at 1/3."""
    linear = check(_case(models, "gpt2", "lora", "linear", dropout=0.1), "cpu").errors
    names = ["output", "branch", "x", "layer.lora_a", "layer.lora_b"]
    assert {*names, *(f"{n} after a step" for n in names), *(f"{n} in one layer at scale 1/3" for n in names)} < {
        *linear
    }
    assert sum("mask" in name for name in linear) == 9
    block = check(_case(models, "llama", "full", "block"), "cpu").errors
    assert {"output", "x", "block.self_attn.k_proj.weight", "block.input_layernorm.weight"} < {*block}
    model = check(_case(models, "gpt2", "paca", "model"), "cpu").errors
    assert {"loss", "logits", "columns", "columns after a step"} < {*model}


@pytest.mark.parametrize("rank", [1, 4, 16])
@pytest.mark.parametrize("scale", [1 / 3, 1.0, 4.0])
def test_the_branch_is_large_enough_to_be_seen(scale: float, rank: int) -> None:
    case = make_case(None, "lora", "linear", layer="square-64", rank=rank, alpha=scale * rank)
    exact = reference(yardstick(case, "cpu", 0))
    values = {"layer.lora_a": torch.randn(rank, 64), "layer.lora_b": torch.zeros(64, rank)}
    draw_b(values, exact, SHARE)
    exact.load(values)
    output, base = exact.run(torch.zeros(2, 8, 64))["output"], exact.base()
    assert ((output - base).norm() / base.norm()).item() == pytest.approx(SHARE, rel=1e-5)


def test_nothing_is_left_changed(models: dict[str, str]) -> None:
    torch.manual_seed(3)
    before, default, grad = torch.random.get_rng_state(), torch.get_default_dtype(), torch.is_grad_enabled()
    precision, tf32 = torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32
    check(_case(models, "gpt2", "lora", "model", dropout=0.1), "cpu")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (torch.get_default_dtype(), torch.is_grad_enabled()) == (default, grad)
    assert (torch.get_float32_matmul_precision(), torch.backends.cuda.matmul.allow_tf32) == (precision, tf32)


def test_a_large_case_is_checked_on_few_tokens(models: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Case] = []

    def spy(case: Case, device: str, seed: int) -> Any:
        seen.append(case)
        return build(case, device, seed)

    monkeypatch.setattr("bench.measure.gate.build", spy)
    assert check(_case(models, "gpt2", "full", "model", batch=64, seq=64, trainable_layers="3"), "cpu").passed
    (small,) = seen
    assert small.tokens == 64 and small.shape is not None
    assert (small.shape.num_layers, small.shape.hidden_size, small.trainable_layers) == (2, 32, "2")


# --- what is wrong does not


Forward = Callable[[Any, Tensor], Tensor]


@pytest.fixture
def plant(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[..., Any]], str]:
    """Registers apply(model, case) as an impl of a method, and returns the impl's name."""

    def register(method: str, apply: Callable[..., Any]) -> str:
        module: Any = ModuleType("planted_fault")
        module.apply = apply
        monkeypatch.setitem(sys.modules, "planted_fault", module)
        monkeypatch.setitem(IMPLS[method], "planted", Impl("planted_fault", "wrong on purpose"))
        return "planted"

    return register


def _lora(forward: Forward) -> Callable[..., Any]:
    """An impl of lora whose layers compute `forward(layer, x)`."""
    kind = type("Planted", (LoRALinear,), {"forward": forward})

    def apply(model: nn.Module, case: Case) -> Any:
        assert case.rank is not None and case.alpha is not None
        make = [case.rank, case.alpha, case.dropout or 0.0, torch.float32 if case.adapter_dtype == "fp32" else None]
        return adapt(model, case, lambda _, layer: kind(layer, *make))

    return apply


def _y(
    layer: LoRALinear,
    x: Tensor,
    scale: float | None = None,
    branch_x: Tensor | None = None,
    a: Tensor | None = None,
    b: Tensor | None = None,
) -> Tensor:
    """The right formula, with parts to replace."""
    s = F.linear(x if branch_x is None else branch_x, layer.lora_a if a is None else a)
    return layer.base(x) + (layer.scale if scale is None else scale) * F.linear(s, layer.lora_b if b is None else b)


def _rows_missing(layer: LoRALinear, x: Tensor) -> Tensor:
    y = _y(layer, x)
    keep = torch.arange(y.shape[1])[:, None] < y.shape[1] - 3
    return y - (y * ~keep).detach()


def _one_nan(layer: LoRALinear, x: Tensor) -> Tensor:
    y = _y(layer, x)
    nan = torch.zeros_like(y)
    nan[0, -1, -1] = math.nan
    return y + nan


def _without_gradient(t: Tensor) -> Tensor:
    return t.detach() + 0 * t


def _stale_b(layer: Any, x: Tensor) -> Tensor:
    if not hasattr(layer, "kept"):
        layer.kept = layer.lora_b.detach().clone()
    return _y(layer, x, b=layer.kept + layer.lora_b - layer.lora_b.detach())


def _now_and_then(layer: Any, x: Tensor) -> Tensor:
    """Wrong in every third call, as a race is."""
    layer.calls = getattr(layer, "calls", 0) + 1
    y = _y(layer, x)
    return y + (0.1 * y).detach() if layer.calls % 3 == 0 else y


LORA: dict[str, tuple[Forward, set[str], str]] = {
    "doubled scale": (lambda m, x: _y(m, x, 2 * m.scale), {"output"}, ""),
    "scale left out": (lambda m, x: _y(m, x, 1.0), {"output"}, ""),
    "a third done as 0.3": (lambda m, x: _y(m, x, round(m.scale, 1)), {"output"}, "at scale 1/3"),
    "no bias": (lambda m, x: _y(m, x) - m.bias, {"output"}, ""),
    "last rows missing": (_rows_missing, {"output"}, ""),
    "NaN": (_one_nan, {"output"}, ""),
    "no branch": (lambda m, x: m.base(x) + 0 * _y(m, x), {"output"}, ""),
    "dA zero": (lambda m, x: _y(m, x, a=_without_gradient(m.lora_a)), {"lora_a"}, ""),
    "dB zero": (lambda m, x: _y(m, x, b=_without_gradient(m.lora_b)), {"lora_b"}, ""),
    "dX without the branch": (lambda m, x: _y(m, x, branch_x=x.detach()), {"x"}, ""),
    "stale B": (_stale_b, {"output"}, "after a step"),
    "now and then": (_now_and_then, {"output"}, ""),
}


def _scale_first(layer: LoRALinear, x: Tensor) -> Tensor:
    """What a fused kernel does: s times S, rounded, before the second product; y and the branch summed in fp32."""
    s = layer.scale * F.linear(x, layer.lora_a)
    return (layer.base(x).float() + F.linear(s, layer.lora_b).float()).to(x.dtype)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("level", ["linear", "block", "model"])
def test_other_right_ways_pass(models: dict[str, str], plant: Any, level: str, precision: str) -> None:
    """The kernels' modules (their reference on a CPU), and another order of the same products."""
    for seed in range(3):
        for forward in (LoRALinear.forward, _scale_first):
            impl = plant("lora", _lora(forward))
            result = check(_case(models, "gpt2", "lora", level, impl=impl, precision=precision), "cpu", seed)
            assert result.passed, result.detail
        impl = plant("paca", _paca(_with(PaCALinear)))
        result = check(_case(models, "llama", "paca", level, impl=impl, precision=precision), "cpu", seed)
        assert result.passed, result.detail


def test_peft_passes_by_its_own_names(models: dict[str, str], plant: Any) -> None:
    peft = pytest.importorskip("peft")

    def apply(model: nn.Module, case: Case) -> Any:
        config = peft.LoraConfig(
            r=case.rank, lora_alpha=case.alpha, lora_dropout=case.dropout, target_modules=["layer"]
        )
        peft.inject_adapter_in_model(config, model)
        return trained(model)

    impl = plant("lora", apply)
    result = check(_case(models, "llama", "lora", "linear", impl=impl, dropout=0.1), "cpu")
    assert result.passed, result.detail
    assert "layer.lora_a" in result.errors


def _named(result: GateResult, tensors: set[str], where: str) -> None:
    assert not result.passed
    assert result.tensor.rpartition(".")[2] in tensors, result.detail
    assert not result.error <= result.bound
    assert result.detail.startswith(result.tensor) and where in result.detail and "bound" in result.detail


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fault", LORA)
def test_faults_of_lora(models: dict[str, str], plant: Any, fault: str, precision: str) -> None:
    forward, tensors, where = LORA[fault]
    impl = plant("lora", _lora(forward))
    _named(check(_case(models, "gpt2", "lora", "linear", impl=impl, precision=precision), "cpu"), tensors, where)


@pytest.mark.parametrize("level", ["block", "model"])
@pytest.mark.parametrize("fault", ["doubled scale", "a third done as 0.3", "no bias", "dA zero", "NaN", "stale B"])
def test_faults_of_lora_inside_of_models(models: dict[str, str], plant: Any, fault: str, level: str) -> None:
    forward, tensors, where = LORA[fault]
    if "output" in tensors and level == "model" and "1/3" not in where:
        tensors = {"loss", "logits"}
    impl = plant("lora", _lora(forward))
    _named(check(_case(models, "gpt2", "lora", level, impl=impl, precision="bf16"), "cpu"), tensors, where)


class _TwoMasks(torch.autograd.Function):
    """drop(x), whose backward draws again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        ctx.p = p
        return F.dropout(x, p)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return F.dropout(grads[0], ctx.p), None


def _dropped(drop: Callable[[Any, Tensor], Tensor]) -> Forward:
    """drop acts only where dropout is on."""
    return lambda m, x: _y(m, x, branch_x=drop(m, x) if m.dropout else x)


def _keep(x: Tensor, p: float, seed: int | None = None, shape: Any = None) -> Tensor:
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return (torch.rand(shape or x.shape, generator=generator) >= p).to(x.dtype)


def _da_by_another_mask(m: Any, x: Tensor) -> Tensor:
    """dA from an x that was dropped by another mask."""
    dropped, other = F.dropout(x, m.dropout), F.dropout(x, m.dropout).detach()
    a = m.lora_a.detach()
    s = F.linear(dropped, a) + F.linear(other, m.lora_a - a)
    return m.base(x) + m.scale * F.linear(s, m.lora_b)


MASKS: dict[str, tuple[Forward, set[str], str]] = {
    "not scaled": (_dropped(lambda m, x: x * _keep(x, m.dropout)), {"mask"}, "multiplies survivors by 1, not 1.111"),
    "scaled by 1 + p": (_dropped(lambda m, x: x * _keep(x, m.dropout) * 1.1), {"mask"}, "multiplies survivors"),
    "another rate": (_dropped(lambda m, x: F.dropout(x, 0.15)), {"mask"}, "of the elements at dropout 0.1"),
    "no dropout": (_dropped(lambda m, x: x), {"mask"}, "drops 0 of"),
    "the same at every call": (_dropped(lambda m, x: x * _keep(x, 0.1, 5) / 0.9), {"mask"}, "the same one again"),
    "one for all tokens": (_dropped(lambda m, x: x * _keep(x, 0.1, None, x.shape[-1:]) / 0.9), {"mask"}, "correlated"),
    "in pairs": (
        _dropped(lambda m, x: x * _keep(x[..., ::2], 0.1).repeat_interleave(2, -1) / 0.9),
        {"mask"},
        "correlated",
    ),
    "another in backward": (
        _dropped(lambda m, x: _TwoMasks.apply(x, m.dropout)),
        {"output"},
        "the mask that the gradient of x shows",
    ),
    "none in backward": (
        _dropped(lambda m, x: x + (F.dropout(x, m.dropout) - x).detach()),
        {"mask"},
        "drops 0 of the elements",
    ),
    "another for dA": (
        lambda m, x: _da_by_another_mask(m, x) if m.dropout else _y(m, x),
        {"lora_a"},
        "the mask that the gradient of x shows",
    ),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fault", MASKS)
def test_faults_of_dropout(plant: Any, fault: str, precision: str) -> None:
    forward, tensors, where = MASKS[fault]
    axes = {"layer": "square-96", "batch": 1, "seq": 64, "precision": precision, "dropout": 0.1}
    assert check(make_case(None, "lora", "linear", **axes), "cpu").passed
    _named(check(make_case(None, "lora", "linear", impl=plant("lora", _lora(forward)), **axes), "cpu"), tensors, where)


def test_dropout_is_checked_at_level_block(models: dict[str, str], plant: Any) -> None:
    impl = plant("lora", _lora(MASKS["not scaled"][0]))
    _named(check(_case(models, "llama", "lora", "block", impl=impl, dropout=0.1), "cpu"), {"mask"}, "multiplies")


def _paca(make: Callable[[str, nn.Module, Case], nn.Module]) -> Callable[..., Any]:
    return lambda model, case: adapt(model, case, lambda name, layer: make(name, layer, case))


def _right(name: str, layer: nn.Module, case: Case, kind: type[PaCALinear] = EagerPaCALinear) -> PaCALinear:
    assert case.rank is not None and case.alpha is not None
    return kind(layer, case.rank, case.alpha, seed=seed_of(name))


class _Swapped(EagerPaCALinear):
    """Gathers x in another order than that of its columns."""

    def forward(self, x: Tensor) -> Tensor:
        live = self.scale * (self.columns - self.columns.detach())
        return F.linear(x, self.weight, self.bias) + F.linear(x[..., self.index.flip(0)], live)


class _Stale(EagerPaCALinear):
    """Keeps a copy of the weight from before the step."""

    def forward(self, x: Tensor) -> Tensor:
        if not hasattr(self, "kept"):
            self.kept = self.weight.detach().clone()
        live = self.scale * (self.columns - self.columns.detach())
        return F.linear(x, self.kept, self.bias) + F.linear(x[..., self.index], live)


class _Unscaled(EagerPaCALinear):
    """Leaves the scale out of the gradient."""

    def forward(self, x: Tensor) -> Tensor:
        live = self.columns - self.columns.detach()
        return F.linear(x, self.weight, self.bias) + F.linear(x[..., self.index], live)


class _NoRefresh(EagerPaCALinear):
    def refresh(self) -> None:
        pass


def _with(kind: type[PaCALinear]) -> Callable[[str, nn.Module, Case], nn.Module]:
    return lambda name, layer, case: _right(name, layer, case, kind)


def _unsorted(name: str, layer: nn.Module, case: Case) -> nn.Module:
    found = _right(name, layer, case)
    found.index = found.index.flip(0)
    with torch.no_grad():
        found.columns.copy_(found.columns.flip(1))
    return found


def _other_columns(name: str, layer: nn.Module, case: Case) -> nn.Module:
    return _right(name + "?", layer, case)


def _undivided(name: str, layer: nn.Module, case: Case) -> nn.Module:
    found = _right(name, layer, case)
    with torch.no_grad():
        found.columns.mul_(found.scale)
    return found


PACA: dict[str, tuple[Callable[..., nn.Module], set[str], str]] = {
    "swapped index": (_with(_Swapped), {"columns"}, "differs"),
    "stale weight": (lambda name, layer, case: _right(name, layer, case, _Stale), {"output", "logits"}, "after a step"),
    "no refresh": (
        lambda name, layer, case: _right(name, layer, case, _NoRefresh),
        {"output", "logits"},
        "after a step",
    ),
    "no scale in the gradient": (
        lambda name, layer, case: _right(name, layer, case, _Unscaled),
        {"columns"},
        "differs",
    ),
    "unsorted columns": (_unsorted, {"index", "columns"}, ""),
    "other columns": (_other_columns, {"index", "columns"}, ""),
    "columns not divided by the scale": (_undivided, {"columns"}, "as built"),
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("level", ["linear", "block", "model"])
@pytest.mark.parametrize("fault", PACA)
def test_faults_of_paca(models: dict[str, str], plant: Any, fault: str, level: str, precision: str) -> None:
    make, tensors, where = PACA[fault]
    impl = plant("paca", _paca(make))
    _named(check(_case(models, "gpt2", "paca", level, impl=impl, precision=precision), "cpu"), tensors, where)


def _no_bias(model: nn.Module, case: Case) -> Any:
    for name, _ in model.named_parameters():
        if name.endswith("c_proj.bias"):
            layer = model.get_submodule(name.rpartition(".")[0])
            layer.register_forward_hook(lambda m, _, y: y - m.bias)
    return trained(model)


def _half_frozen(model: nn.Module, case: Case) -> Any:
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("ln_" not in name)
    return trained(model)


@pytest.mark.parametrize("level", ["block", "model"])
def test_faults_of_full(models: dict[str, str], plant: Any, level: str) -> None:
    result = check(_case(models, "gpt2", "full", level, impl=plant("full", _no_bias)), "cpu")
    _named(result, {"output", "logits"}, "bias")
    result = check(_case(models, "gpt2", "full", level, impl=plant("full", _half_frozen)), "cpu")
    _named(result, {"weight", "bias"}, "should train and does not")
    assert ".ln_1." in result.tensor


def test_leaves_that_are_not_as_declared(models: dict[str, str], plant: Any) -> None:
    """A layer that was not adapted, a frozen weight with a gradient, a trained tensor without one."""

    def one_layer_less(model: nn.Module, case: Case) -> Any:
        found = _lora(LORA["stale B"][0])(model, case)
        layer = model.get_submodule("block.attn.c_attn")
        model.get_submodule("block.attn").c_attn = layer.base
        return [(name, p) for name, p in found if "c_attn" not in name]

    result = check(_case(models, "gpt2", "lora", "block", impl=plant("lora", one_layer_less)), "cpu")
    _named(result, {"lora_a"}, "block.attn.c_attn.lora_a should train and does not")

    def thawed(model: nn.Module, case: Case) -> Any:
        found = _lora(lambda m, x: _y(m, x))(model, case)
        model.get_parameter("layer.base.weight").requires_grad_(True)
        return found

    result = check(_case(models, "gpt2", "lora", "linear", impl=plant("lora", thawed)), "cpu")
    _named(result, {"weight"}, "is frozen and got a gradient")

    impl = plant("lora", _lora(lambda m, x: _y(m, x, a=m.lora_a.detach())))
    _named(check(_case(models, "gpt2", "lora", "linear", impl=impl), "cpu"), {"lora_a"}, "has none")


# --- the whole


@pytest.mark.parametrize("method", ["full", "lora", "paca"])
def test_a_finite_model(models: dict[str, str], method: str) -> None:
    work = build(_case(models, "gpt2", method, "model", precision="bf16"), "cpu")
    before = torch.random.get_rng_state()
    assert finite(work) is None
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(leaf.grad is None for _, leaf in work.leaves)


def test_a_model_that_is_not_finite(models: dict[str, str]) -> None:
    work = build(_case(models, "llama", "lora", "model"), "cpu")
    name, leaf = work.leaves[0]
    leaf.register_hook(lambda grad: grad * math.inf)
    assert finite(work) == f"the gradient of {name} is not finite"
    with torch.no_grad():
        leaf[0, 0] = math.nan
    complaint = finite(work)
    assert complaint is not None and complaint.startswith("the loss is not finite, nor are ")
    leaf.requires_grad_(False)
    assert finite(work) == f"{name} should get a gradient and has none"


def test_a_block_whose_output_overflows(tmp_path: Path) -> None:
    work = build(make_case(write_config(tmp_path, LLAMA), "full", "block", precision="fp16"), "cpu")
    with torch.no_grad():
        work.model.get_parameter("block.mlp.down_proj.weight").fill_(6e4)
    complaint = finite(work)
    assert complaint is not None and "is not finite" in complaint
