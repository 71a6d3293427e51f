"""PaCA, impl eager, against a dense model in which only those columns of W train, step by step in float64."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from bench.methods.adapt import replace, target_layers
from bench.methods.refresh import refreshed_layers
from bench.methods.registry import apply
from bench.models.build import build
from bench.models.config import make_config, make_model
from kernels import PaCALinear, parameter_groups, refresh_after_step
from kernels.paca import remove_paca
from kernels.paca.target_layers import seed_of
from tests.methods.dense import DenseColumns
from tests.models.tiny import GPT2, LLAMA, NO_DROPOUT, make_case, write_config

CPU = torch.device("cpu")
FIELDS = {
    "gpt2": {**GPT2, **NO_DROPOUT, "n_layer": 2},
    "llama": {**LLAMA, "num_hidden_layers": 2},
}


def _pair(family: str, folder: Path, **axes: Any) -> tuple[nn.Module, nn.Module, dict[str, Tensor]]:
    """A model under PaCA, its dense counterpart, and the pretrained values of all their weights by name."""
    case = make_case(write_config(folder, FIELDS[family]), "paca", **axes)
    config = make_config(FIELDS[family])
    ours, dense = make_model(config, CPU, torch.float64), make_model(config, CPU, torch.float64)
    with torch.no_grad():
        for p in ours.parameters():  # exact in fp32, as a pretrained weight in any shorter dtype is
            p.copy_(p.float())
    dense.load_state_dict(ours.state_dict())
    pretrained = {name: p.detach().clone() for name, p in ours.named_parameters()}
    apply(ours, case)
    dense.requires_grad_(False)
    layers = dict(ours.named_modules())
    for name, layer in target_layers(dense, case):
        replace(dense, name, DenseColumns(layer, layers[name].index))  # type: ignore[arg-type]
    return ours, dense, pretrained


def _twins(ours: nn.Module, dense: nn.Module) -> list[tuple[PaCALinear, DenseColumns]]:
    modules = dict(dense.named_modules())
    return [
        (layer, modules[name])  # type: ignore[misc]
        for name, layer in ours.named_modules()
        if isinstance(layer, PaCALinear)
    ]


@pytest.mark.parametrize(
    ("accumulate", "alpha", "tolerance"),
    [
        pytest.param(1, 16.0, 1e-10, id="every-step"),
        pytest.param(2, 16.0, 1e-10, id="accumulated"),
        # W / 2.5 is not exact: PaCALinear rounds it in fp32, so the first refresh moves W by that much.
        pytest.param(1, 10.0, 1e-6, id="inexact-scale"),
    ],
)
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
@pytest.mark.parametrize("family", FIELDS)
def test_trains_as_the_dense_columns_do(
    family: str, kind: str, accumulate: int, alpha: float, tolerance: float, tmp_path: Path
) -> None:
    ours, dense, pretrained = _pair(family, tmp_path, alpha=alpha)
    twins = _twins(ours, dense)
    assert len(twins) == {"gpt2": 8, "llama": 14}[family]
    s = twins[0][0].scale
    trained = [p for p in ours.parameters() if p.requires_grad]
    live = [twin.live for _, twin in twins]
    if kind == "sgd":  # p = W / s has gradient s dW, and s dp is what W moves by
        optimizers = [torch.optim.SGD(trained, lr=0.05), torch.optim.SGD(live, lr=0.05 * s**2)]
    else:  # Adam's step does not see the gradient's size, only eps does
        optimizers = [
            torch.optim.AdamW(trained, lr=1e-3, eps=1e-8, weight_decay=0.0),
            torch.optim.AdamW(live, lr=1e-3 * s, eps=1e-8 / s, weight_decay=0.0),
        ]
    refresh_after_step(optimizers[0], ours)
    generator = torch.Generator().manual_seed(2)
    losses: list[float] = []
    for _ in range(5):
        batches = [torch.randint(101, (2, 12), generator=generator) for _ in range(accumulate)]
        for model, optimizer in zip((ours, dense), optimizers, strict=True):
            optimizer.zero_grad()
            for ids in batches:
                loss = model(input_ids=ids, labels=ids, use_cache=False).loss / accumulate
                loss.backward()
                losses.append(float(loss.detach()))
            optimizer.step()
        for layer, twin in twins:
            torch.testing.assert_close(layer.weight, twin.weight(), rtol=0, atol=tolerance)
    by_model = torch.tensor(losses, dtype=torch.float64).view(5, 2, accumulate)
    torch.testing.assert_close(by_model[:, 0], by_model[:, 1], rtol=tolerance, atol=0)
    assert not torch.equal(twins[0][0].weight, pretrained[_name(ours, twins[0][0])])

    with torch.no_grad():  # nothing but the live columns has moved, and those move back
        for layer, _ in twins:
            rest = torch.ones(layer.in_features, dtype=torch.bool)
            rest[layer.index] = False
            weight = pretrained[_name(ours, layer)]
            weight = weight.t() if layer.transposed else weight
            assert torch.equal(layer.weight[:, rest], weight[:, rest])
            assert not torch.equal(layer.weight[:, layer.index], weight[:, layer.index])
    remove_paca(ours)
    found = dict(ours.named_parameters())
    assert found.keys() == pretrained.keys()
    assert all(torch.equal(found[name], pretrained[name]) for name in pretrained)


def _name(model: nn.Module, layer: nn.Module) -> str:
    """The name of a layer's weight before the layer was wrapped."""
    return next(name for name, module in model.named_modules() if module is layer) + ".weight"


@pytest.mark.parametrize("conv1d", [False, True], ids=["linear", "conv1d"])
def test_gradients_equal_the_dense_ones(conv1d: bool) -> None:
    torch.manual_seed(0)
    base: nn.Module = Conv1D(40, 24) if conv1d else nn.Linear(24, 40)
    model = nn.ModuleDict({"layer": base}).double()
    weight = base.get_parameter("weight").detach().clone()
    case = make_case(None, "paca", "linear", layer="square-24", rank=5, alpha=5 / 3)  # s = 1/3
    ((name, columns),) = apply(model, case)
    layer = model["layer"]
    assert name == "layer.columns" and isinstance(layer, PaCALinear)
    x, y_grad = torch.randn(3, 7, 24).double().requires_grad_(), torch.randn(3, 7, 40).double()
    y = layer(x)
    y.backward(y_grad)
    dense = weight.t() if conv1d else weight
    torch.testing.assert_close(y, F.linear(x, dense, base.bias), rtol=0, atol=1e-12)
    torch.testing.assert_close(x.grad, y_grad @ dense, rtol=0, atol=1e-12)
    dense_grad = y_grad.reshape(-1, 40).t() @ x.detach().reshape(-1, 24)
    torch.testing.assert_close(columns.grad, dense_grad[:, layer.index] / 3, rtol=0, atol=1e-12)


@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
def test_keeps_the_live_inputs_and_not_x(autocast: bool) -> None:
    work = build(
        make_case(None, "paca", "linear", layer="square-32", precision="amp-bf16" if autocast else "fp32"), "cpu"
    )
    saved: list[tuple[tuple[int, ...], torch.dtype]] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append((tuple(tensor.shape), tensor.dtype))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        work.forward()
    dtype = torch.bfloat16 if autocast else torch.float32
    assert sorted(saved, key=str) == sorted([((32, 32), dtype), ((2, 8, 4), dtype)], key=str)


def test_no_product_for_an_input_that_needs_no_gradient() -> None:
    model = nn.ModuleDict({"layer": nn.Linear(16, 8)})
    apply(model, make_case(None, "paca", "linear", layer="square-16"))
    saved: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        model["layer"](torch.randn(3, 16)).sum().backward()
    assert saved == [12]


def test_columns_follow_from_the_layers_name(tmp_path: Path) -> None:
    path = write_config(tmp_path, GPT2)
    first, second = (build(make_case(path, "paca", rank=6), "cpu", seed=seed) for seed in (0, 1))
    layers = list(zip(refreshed_layers(first.model), refreshed_layers(second.model), strict=True))
    for one, other in layers:
        assert torch.equal(one.index, other.index)
        assert one.index.tolist() == sorted(set(one.index.tolist()))
        assert len(one.index) == 6
        assert "index" in one.state_dict()
    assert len({tuple(one.index.tolist()) for one, _ in layers}) > len(layers) // 2
    assert seed_of("h.0.attn.c_attn") == seed_of("h.0.attn.c_attn") != seed_of("h.1.attn.c_attn")
    assert 0 <= seed_of("") < 2**63


def test_decay_does_not_pull_pretrained_columns(tmp_path: Path) -> None:
    ours, _, _ = _pair("gpt2", tmp_path)
    optimizer = torch.optim.AdamW(parameter_groups(ours, weight_decay=0.5), lr=0.1)
    refresh_after_step(optimizer, ours)
    before = [layer.weight.clone() for layer in refreshed_layers(ours)]
    for p in ours.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    for _ in range(3):
        optimizer.step()
    assert all(torch.equal(layer.weight, w) for layer, w in zip(refreshed_layers(ours), before, strict=True))


def test_step_of_a_work_refreshes_and_spares_columns_from_decay(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("bench.models.work.LEARNING_RATE", 0.01)
    work = build(make_case(write_config(tmp_path, GPT2), "paca"), "cpu")
    before = [layer.weight.detach().clone() for layer in refreshed_layers(work.model)]
    work.backward(work.forward())
    work.optimizer_step()
    work.refresh()
    assert work._optimizer is not None
    assert [group["weight_decay"] for group in work._optimizer.param_groups] == [0.0]
    for layer, old in zip(refreshed_layers(work.model), before, strict=True):
        live = layer.weight[:, layer.index]
        assert torch.equal(live, layer.scale * layer.columns)
        assert not torch.equal(live, old[:, layer.index])
