"""Which layers 'all-linear' leaves aside, which are refused by name, and that a refusal changes nothing."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from torch.nn.utils import prune

from kernels.paca import load_paca, merge_paca, paca, remove_paca, save_paca
from kernels.paca.model import paca_layers
from tests.kernels.paca.paca_models import is_fresh, make, same, step, trained, weights

SIZES: dict[str, Any] = {
    "vocab_size": 101, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
}  # fmt: skip
LLAMA4: dict[str, Any] = {
    **SIZES, "intermediate_size": 48, "intermediate_size_mlp": 48, "head_dim": 8, "num_local_experts": 4,
}  # fmt: skip


def llama4() -> nn.Module:
    torch.manual_seed(0)
    return transformers.Llama4ForCausalLM(transformers.Llama4TextConfig(**LLAMA4))


def test_routers_are_left_aside_and_the_rest_trains(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"left 2 linear layers .*\n  2 x it is a Llama4Router.*layers.0.*layers.1"):
        model = paca(llama4(), 4, 8)
    assert {name.rpartition(".")[2] for name in model.paca_left} == {"router"}
    assert not any("router" in name for name in paca_layers(model)) and len(paca_layers(model)) == 14
    step(model, torch.optim.SGD(trained(model), lr=0.5))
    assert is_fresh(model)
    save_paca(model, tmp_path)
    assert same(dict(load_paca(llama4(), tmp_path).state_dict()), dict(model.state_dict()))
    with pytest.raises(ValueError, match=r"layers.0.feed_forward.router cannot be adapted: it is a Llama4Router"):
        paca(llama4(), 4, 8, targets=["router"])
    assert not hasattr(remove_paca(model), "paca_left")


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp, self.out = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.relu(self.mlp(self.attention(x, x, x)[0])))


def stack() -> Any:
    torch.manual_seed(0)
    return nn.ModuleDict({"layers": nn.ModuleList([_Block(), _Block()])})


class _Packed(torch.Tensor):
    """A tensor that knows no index_select, as torchao's quantised ones."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "index_select" in getattr(function, "__name__", ""):
            raise NotImplementedError("index_select")
        return super().__torch_function__(function, types, args, kwargs or {})


def _pack(layer: Any) -> None:
    layer.weight = nn.Parameter(layer.weight.detach().as_subclass(_Packed))


def _tie(layer: Any, model: Any) -> None:
    layer.weight = model["layers"][1].out.weight


SPECIAL: dict[str, tuple[Any, str]] = {
    "subclass-weight": (lambda m, x: _pack(x), "its weight is a _Packed, expected a plain parameter"),
    "prune": (
        lambda m, x: prune.random_unstructured(x, "weight", 0.5),
        "its weight is computed by hooks",
    ),
    "weight-norm": (lambda m, x: torch.nn.utils.weight_norm(x), "its weight is computed by hooks"),
    "parametrized": (lambda m, x: torch.nn.utils.parametrizations.orthogonal(x), "it is a ParametrizedLinear"),
    "spectral-norm": (lambda m, x: torch.nn.utils.spectral_norm(x), "its weight is computed by hooks"),
    "qat": (lambda m, x: setattr(x, "__class__", type("QatLinear", (nn.Linear,), {})), "it is a QatLinear"),
    "meta": (lambda m, x: x.to("meta"), "its weight is on the meta device"),
    "tied": (lambda m, x: _tie(x, m), "its weight is tied to"),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize("case", SPECIAL)
def test_a_special_layer_is_left_aside_or_refused_by_name(case: str) -> None:
    change, words = SPECIAL[case]
    model = stack()
    change(model, model["layers"][0].mlp)
    before = _state(model)
    with pytest.raises(ValueError, match=f"layers.0.mlp cannot be adapted: {words}"):
        paca(model, 2, 4, targets=["out", "mlp"])
    assert _state(model) == before
    with pytest.warns(UserWarning, match="paca\\(\\) left"):
        paca(model, 2, 4)
    assert model.paca_left["layers.0.mlp"].startswith(words)
    assert "NonDynamicallyQuantizableLinear" in model.paca_left["layers.0.attention.out_proj"]
    assert {"layers.1.mlp", "layers.0.out"} <= paca_layers(model).keys()


def _state(model: nn.Module) -> Any:
    """All that a refusal must leave: modules, their kinds, and which parameters train."""
    return [(n, id(m), type(m)) for n, m in model.named_modules()], [
        (id(p), p.requires_grad) for p in model.parameters()
    ]


def test_nothing_is_left_to_adapt() -> None:
    model = stack()
    for block in model["layers"]:
        _pack(block.mlp)
        _pack(block.out)
    before = _state(model)
    with pytest.raises(ValueError, match="no linear layer of ModuleDict can be adapted: 4 x its weight is a _Packed"):
        paca(model, 2, 4)
    assert _state(model) == before


def test_a_layer_that_fails_half_way_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    model, select, calls = stack(), torch.Tensor.index_select, []
    model["layers"][0].mlp.bias.requires_grad_(False)
    before = _state(model)

    def full(tensor: torch.Tensor, *args: Any) -> torch.Tensor:
        calls.append(tensor)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("out of memory")
        return select(tensor, *args)

    monkeypatch.setattr(torch.Tensor, "index_select", full)
    with pytest.raises(torch.OutOfMemoryError):
        paca(model, 2, 4, targets=["mlp", "out"])
    assert _state(model) == before and not hasattr(model, "paca_config")


class _FullyShardedDataParallel(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


_FullyShardedDataParallel.__name__ = "FullyShardedDataParallel"


def test_wrapped_and_sharded_models_are_refused() -> None:
    model = make("gpt2")
    before = _state(model)
    with pytest.raises(ValueError, match="wrapped in DataParallel: call paca"):
        paca(nn.DataParallel(model), 4, 8)
    with pytest.raises(
        ValueError, match="the model is under FullyShardedDataParallel, which does not keep whole weights"
    ):
        paca(_FullyShardedDataParallel(model), 4, 8, targets=["c_attn"])
    model.transformer.h[1] = _FullyShardedDataParallel(model.transformer.h[1])
    with pytest.raises(ValueError, match=r"transformer\.h\.1 is under FullyShardedDataParallel"):
        paca(model, 4, 8)
    model.transformer.h[1] = model.transformer.h[1].module
    assert _state(model) == before


def test_falcons_own_linear_layers_are_adapted_and_given_back(tmp_path: Path) -> None:
    def falcon() -> nn.Module:
        torch.manual_seed(0)
        sizes = {"vocab_size": 101, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
        return transformers.FalconForCausalLM(transformers.FalconConfig(**sizes, attention_dropout=0.0))

    model = paca(falcon(), 4, 10)
    assert len(paca_layers(model)) == 8
    for seed in range(2):
        step(model, torch.optim.SGD(trained(model), lr=0.5), seed)
    save_paca(model, tmp_path)
    again = load_paca(falcon(), tmp_path)
    assert same(dict(again.state_dict()), dict(model.state_dict())) and is_fresh(again)
    kinds = {n: type(m) for n, m in falcon().named_modules()}
    ids = torch.arange(3, 12)[None]
    expected = model.eval()(input_ids=ids).logits
    assert torch.equal(merge_paca(model)(input_ids=ids).logits, expected)
    assert same(weights(remove_paca(again)), weights(falcon()))
    assert {n: type(m) for n, m in model.named_modules()} == {n: type(m) for n, m in again.named_modules()} == kinds


MAMBAS: dict[str, tuple[Any, set[str], set[str]]] = {
    "mamba": (
        lambda: transformers.MambaForCausalLM(
            transformers.MambaConfig(vocab_size=101, hidden_size=32, num_hidden_layers=2, state_size=4)
        ),
        {"in_proj"}, {"x_proj", "dt_proj", "out_proj"},
    ),
    "mamba2": (
        lambda: transformers.Mamba2ForCausalLM(
            transformers.Mamba2Config(
                vocab_size=101, hidden_size=32, num_hidden_layers=2, state_size=4, num_heads=4, head_dim=16, n_groups=1,
                chunk_size=8,
            )
        ),
        {"in_proj"}, {"out_proj"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MAMBAS)
def test_layers_whose_weight_the_model_reads_are_left_aside(case: str) -> None:
    build, adapted, left = MAMBAS[case]
    with pytest.warns(UserWarning, match="reads its weight in place of calling it"):
        model = paca(build(), 4, 8)
    assert {name.rpartition(".")[2] for name in paca_layers(model)} == adapted
    assert {name.rpartition(".")[2] for name in model.paca_left} == left
    with pytest.raises(ValueError, match=r"out_proj cannot be adapted: Mamba2?Mixer reads its weight"):
        paca(build(), 4, 8, targets=["out_proj"])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        step(model, torch.optim.SGD(trained(model), lr=0.1))
    assert all(layer.columns.grad is not None for layer in paca_layers(model).values())


class _Reads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.called, self.read, self.idle = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(self.called(x), self.read.weight)


def test_columns_without_gradient_are_named_once() -> None:
    model = paca(_Reads(), 2, 4, targets=["called", "read", "idle"])
    optimizer = torch.optim.SGD(trained(model), lr=0.01)
    said: list[str] = []
    for _ in range(12):
        optimizer.zero_grad()
        model(torch.ones(3, 8)).sum().backward()
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            optimizer.step()
        said += [f"{len(said)}: {w.message}" for w in found]
    assert len(said) == 2, said
    assert "the columns of read get no gradient" in said[0] and "the columns of idle had no gradient in 10" in said[1]
