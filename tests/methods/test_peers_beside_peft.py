"""How people compute LoRA, PaCA and full fine-tuning today: every impl beside Hugging Face PEFT, or a dense model."""

import math
from itertools import product
from pathlib import Path

import peft
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from bench.correctness.prepare import canonical
from bench.methods.adapt import replace, target_layers
from bench.methods.registry import apply, methods
from bench.models.build import build
from bench.models.work import Work
from kernels import LoRALinear, PaCALinear
from tests.methods.dense import DenseColumns
from tests.models.tiny import GPT2, LLAMA, NO_DROPOUT, make_case, write_config

FIELDS = {"gpt2": {**GPT2, **NO_DROPOUT}, "llama": LLAMA}
LAYERS = {"gpt2": "attn.c_attn", "llama": "mlp.down_proj"}


def _computed(words: str) -> dict[str, str]:
    """The axes of 'eager', or of 'eager, compiled'."""
    impl, _, compiled = words.partition(", ")
    return {"impl": impl, "compile": "default"} if compiled else {"impl": impl}


def _beside_peft(
    model: str, impl: str, dropout: float = 0.0, seed: int = 0, scaling: str | None = None
) -> tuple[Work, Work]:
    """A block under an impl, and the same block under PEFT, set up here; both with the same A and B."""
    work = build(make_case(model, "lora", "block", dropout=dropout, scaling=scaling, **_computed(impl)), "cpu", seed)
    theirs = build(make_case(model, "full", "block"), "cpu", seed)
    conv1d = any(isinstance(m, Conv1D) for m in theirs.model.modules())
    names = [name for name, m in theirs.model.named_modules() if isinstance(m, nn.Linear | Conv1D)]
    config = peft.LoraConfig(
        r=4, lora_alpha=16, lora_dropout=dropout, target_modules=names, fan_in_fan_out=conv1d, bias="none",
        use_rslora=scaling == "rslora",
    )  # fmt: skip
    peft.inject_adapter_in_model(config, theirs.model).train()
    x = [(name, leaf) for name, leaf in theirs.leaves if name == "x"]
    theirs.leaves = [(name, p) for name, p in theirs.model.named_parameters() if p.requires_grad] + x
    values = {canonical(name): leaf for name, leaf in work.leaves}
    assert values.keys() == {canonical(name) for name, _ in theirs.leaves}
    with torch.no_grad():
        for name, leaf in theirs.leaves:
            leaf.copy_(values[canonical(name)])
    return work, theirs


def _run(work: Work) -> dict[str, Tensor]:
    """Output and every gradient, by PEFT's plain names."""
    work.clear()
    out = work.forward()
    work.backward(out)
    return {"output": out.detach()} | {canonical(name): leaf.grad for name, leaf in work.leaves}  # type: ignore[misc]


@pytest.mark.parametrize("scaling", [None, "rslora"], ids=["", "rslora"])
@pytest.mark.parametrize("family", FIELDS)
@pytest.mark.parametrize(
    "impl",
    [
        *methods()["lora"].impls,
        *(pytest.param(f"{name}, compiled", marks=pytest.mark.slow) for name in ("eager", "peft")),
    ],
)
def test_equals_peft_on_a_block(impl: str, family: str, scaling: str | None, tmp_path: Path) -> None:
    """With s = alpha / r, and with rsLoRA's alpha / sqrt(r), which is another function."""
    work, theirs = _beside_peft(write_config(tmp_path, FIELDS[family]), impl, scaling=scaling)
    found, wanted = _run(work), _run(theirs)
    assert found.keys() == wanted.keys() and len(found) == {"gpt2": 10, "llama": 16}[family]
    for name, want in wanted.items():
        error = (found[name] - want).norm() / want.norm()
        assert error < 1e-5, f"{name}: {error:.1e}"


def test_another_scale_than_rslora_s_is_seen(tmp_path: Path) -> None:
    """So that the test above would see a scale of alpha / r."""
    plain, theirs = _beside_peft(write_config(tmp_path, FIELDS["llama"]), "eager", scaling="rslora")
    for module in plain.model.modules():
        if isinstance(module, LoRALinear):
            assert module.scale == 16 / 2
            module.scale = 16 / 4
    found, wanted = _run(plain), _run(theirs)
    assert (found["output"] - wanted["output"]).norm() > 1e-3 * wanted["output"].norm()


def _statistics(work: Work, draws: int) -> Tensor:
    """(draws, n): <dY, Y>, and of every gradient its product with a fixed direction, under a new mask each time."""
    rows = []
    for i in range(draws):
        torch.manual_seed(i)
        found = _run(work)
        generator = torch.Generator().manual_seed(99)
        rows.append([float((t * torch.randn(t.shape, generator=generator)).sum()) for t in found.values()])
    return torch.tensor(rows, dtype=torch.float64)


# Impls that can drop; a compiled one is asked on one family.
DROPPERS = ["eager", "triton", "peft-fp32", "peft", "peft-triton", "addmm"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("impl", "family"),
    [*product(DROPPERS, FIELDS), ("eager, compiled", "gpt2")],
)
def test_dropout_on_a_block_is_peft_s_in_distribution(impl: str, family: str, tmp_path: Path) -> None:
    """Means within 5 standard errors, spreads within 5 of a normal's: of 10 or 16 numbers in 250 draws."""
    draws = 250
    found, wanted = (
        _statistics(w, draws) for w in _beside_peft(write_config(tmp_path, FIELDS[family]), impl, dropout=0.4)
    )
    error = ((found.var(0) + wanted.var(0)) / draws).sqrt()
    assert ((found.mean(0) - wanted.mean(0)).abs() <= 5 * error).all()
    assert ((found.std(0) / wanted.std(0)).log().abs() <= 5 * math.sqrt(1 / draws)).all()


@pytest.mark.parametrize("family", FIELDS)
@pytest.mark.parametrize("impl", DROPPERS)
def test_dropout_of_one_layer_leaves_every_mean_alone(impl: str, family: str, tmp_path: Path) -> None:
    """Survivors are scaled by 1 / (1 - p), and all of it is linear in the mask: the means are those without dropout.

    The variance of Y has a closed form, s^2 p / (1 - p) sum_k x_k^2 (B A)_nk^2.
    """
    p, draws = 0.3, 400
    axes = {"layer": LAYERS[family], "impl": impl, "batch": 1, "seq": 8}
    work = build(make_case(write_config(tmp_path, FIELDS[family]), "lora", "linear", dropout=p, **axes), "cpu")
    torch.manual_seed(1)
    runs = [_run(work) for _ in range(draws)]
    values = {canonical(name): leaf.detach().double() for name, leaf in work.leaves}
    a, b, x = values["layer.lora_a"], values["layer.lora_b"], values["x"][0]
    dy = work.grad_out(runs[0]["output"])[0].double()  # type: ignore[index]
    stored = next(
        t.double() for name, t in work.model.named_parameters() if name.endswith(("base.weight", "base_layer.weight"))
    )
    bias = next((t.double() for name, t in work.model.named_parameters() if name.endswith(".bias")), 0.0)
    weight = stored.detach().t() if family == "gpt2" else stored.detach()
    s = 4.0
    expected = {
        "output": (x @ weight.t() + bias + s * x @ a.t() @ b.t()).detach(),
        "x": dy @ weight + s * dy @ b @ a,
        "layer.lora_a": s * (dy @ b).t() @ x,
        "layer.lora_b": s * dy.t() @ (x @ a.t()),
    }
    for name, want in expected.items():
        drawn = torch.stack([run[name].double().view(want.shape) for run in runs])
        error = drawn.std(0) / math.sqrt(draws) + 1e-6 * want.abs().mean()
        assert ((drawn.mean(0) - want).abs() <= 6 * error).all(), name
    variance = s**2 * p / (1 - p) * (x**2 @ ((b @ a) ** 2).t())
    drawn = torch.stack([run["output"][0].double() for run in runs])
    assert float(drawn.var(0).sum() / variance.sum()) == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("impl", "family"),
    [
        *product(("eager", "triton", "official", "swap"), FIELDS),
        pytest.param("eager, compiled", "gpt2", marks=pytest.mark.slow),
    ],
)
def test_paca_trains_as_the_dense_columns_do(impl: str, family: str, tmp_path: Path) -> None:
    """Three steps of SGD on a block, with refreshes where the impl asks for them and nowhere else."""
    path = write_config(tmp_path, FIELDS[family])
    work = build(make_case(path, "paca", "block", **_computed(impl)), "cpu")
    dense = build(make_case(path, "full", "block"), "cpu")
    assert work.has_refresh == (impl not in ("official", "swap"))
    dense.model.requires_grad_(False)
    layers = dict(work.model.named_modules())
    for name, layer in target_layers(dense.model, work.case):
        replace(dense.model, name, DenseColumns(layer, layers[name].index))  # type: ignore[arg-type]
    twins = [m for m in dense.model.modules() if isinstance(m, DenseColumns)]
    ours = torch.optim.SGD([leaf for name, leaf in work.leaves if name != "x"], lr=0.1)
    theirs = torch.optim.SGD([m.live for m in twins], lr=0.1 * work.case.scale**2)  # p = W / s: s dp is W's step
    outs = []
    for _ in range(3):
        pair = []
        for w, optimizer in ((work, ours), (dense, theirs)):
            optimizer.zero_grad()
            out = w.forward()
            out.square().mean().backward()
            optimizer.step()
            w.refresh()
            pair.append(out.detach())
        assert (pair[0] - pair[1]).norm() < 1e-5 * pair[1].norm()
        outs.append(pair[0])
    assert (outs[0] - outs[2]).norm() > 1e-3 * outs[0].norm()


def _paca_layer(impl: str, base: nn.Module) -> tuple[nn.Module, PaCALinear]:
    model = nn.ModuleDict({"layer": base}).double()
    apply(model, make_case(None, "paca", "linear", layer="square-24", impl=impl))
    layer = model["layer"]
    assert isinstance(layer, PaCALinear)
    return model, layer


@pytest.mark.parametrize("conv1d", [False, True], ids=["linear", "conv1d"])
def test_swap_leaves_the_pretrained_weight_in_place(conv1d: bool) -> None:
    base: nn.Module = Conv1D(40, 24) if conv1d else nn.Linear(24, 40)
    _, layer = _paca_layer("swap", base)
    before = layer.weight.detach().clone()
    with torch.no_grad():
        layer.columns.add_(1.0)
    x = torch.randn(3, 24, dtype=torch.float64, requires_grad=True)
    first, second = layer(x), layer(x)  # both before either backward
    assert torch.equal(layer.weight, before)
    moved = before.index_copy(1, layer.index, layer.scale * layer.columns.detach())
    torch.testing.assert_close(first.detach(), F.linear(x, moved, layer.bias).detach(), rtol=0, atol=1e-12)
    (first.sum() + second.sum()).backward()
    assert torch.equal(layer.weight, before)
    torch.testing.assert_close(x.grad, 2 * torch.ones(3, 40, dtype=torch.float64) @ moved, rtol=0, atol=1e-10)


def test_official_sees_new_columns_in_the_very_next_forward() -> None:
    _, layer = _paca_layer("official", nn.Linear(24, 40))
    x = torch.randn(3, 24, dtype=torch.float64)
    for _ in range(4):
        with torch.no_grad():
            layer.columns.add_(1.0)
        live = layer.weight.detach().index_copy(1, layer.index, layer.scale * layer.columns.detach())
        torch.testing.assert_close(layer(x).detach(), F.linear(x, live, layer.bias).detach(), rtol=0, atol=1e-12)
    (layer(x) + layer(x)).sum().backward()  # copying twice does not spoil what the first forward saved
