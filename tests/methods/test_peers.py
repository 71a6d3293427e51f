"""How people compute LoRA, PaCA and full fine-tuning today: every impl beside Hugging Face PEFT, or a dense model."""

import math
from itertools import product
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, addmm_flop
from transformers.pytorch_utils import Conv1D

from bench.correctness.prepare import canonical
from bench.methods.adapt import replace, target_layers
from bench.methods.lora.merged import MergedLoRALinear
from bench.methods.refresh import draw_lora_b
from bench.methods.registry import apply, methods, note
from bench.models.build import build
from bench.models.work import Work
from bench.roofline.roofline import flops
from kernels import PaCALinear
from tests.conftest import rows_of
from tests.methods.dense import DenseColumns
from tests.models.tiny import GPT2, LLAMA, NO_DROPOUT, Operators, make_case, write_config

FIELDS = {"gpt2": {**GPT2, **NO_DROPOUT}, "llama": LLAMA}
LAYERS = {"gpt2": "attn.c_attn", "llama": "mlp.down_proj"}


def _beside_peft(model: str, impl: str, dropout: float = 0.0, seed: int = 0) -> tuple[Work, Work]:
    """A block under an impl, and the same block under PEFT, set up here; both with the same A and B."""
    work = build(make_case(model, "lora", "block", impl=impl, dropout=dropout), "cpu", seed)
    theirs = build(make_case(model, "full", "block"), "cpu", seed)
    conv1d = any(isinstance(m, Conv1D) for m in theirs.model.modules())
    names = [name for name, m in theirs.model.named_modules() if isinstance(m, nn.Linear | Conv1D)]
    config = peft.LoraConfig(
        r=4, lora_alpha=16, lora_dropout=dropout, target_modules=names, fan_in_fan_out=conv1d, bias="none"
    )
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


@pytest.mark.parametrize("family", FIELDS)
@pytest.mark.parametrize(
    "impl",
    [pytest.param(name, marks=pytest.mark.slow) if i.compiles else name for name, i in methods()["lora"].impls.items()],
)
def test_equals_peft_on_a_block(impl: str, family: str, tmp_path: Path) -> None:
    work, theirs = _beside_peft(write_config(tmp_path, FIELDS[family]), impl)
    found, wanted = _run(work), _run(theirs)
    assert found.keys() == wanted.keys() and len(found) == {"gpt2": 10, "llama": 16}[family]
    for name, want in wanted.items():
        error = (found[name] - want).norm() / want.norm()
        assert error < 1e-5, f"{name}: {error:.1e}"


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
    [*product(DROPPERS, FIELDS), ("compile", "gpt2")],
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
        pytest.param("compile", "gpt2", marks=pytest.mark.slow),
    ],
)
def test_paca_trains_as_the_dense_columns_do(impl: str, family: str, tmp_path: Path) -> None:
    """Three steps of SGD on a block, with refreshes where the impl asks for them and nowhere else."""
    path = write_config(tmp_path, FIELDS[family])
    work = build(make_case(path, "paca", "block", impl=impl), "cpu")
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


@pytest.mark.parametrize("pass_", ["forward", "forward-backward"])
@pytest.mark.parametrize("impl", ["eager", "addmm", "merged", "bordered", "peft"])
def test_products_of_an_impl(impl: str, pass_: str, tmp_path: Path) -> None:
    """As counted by torch. merged computes no branch, and makes S in backward alone; bordered's K is padded by 16."""
    case = make_case(write_config(tmp_path, FIELDS["gpt2"]), "lora", "linear", layer="mlp.c_fc", impl=impl)
    m, (k, n), r = 16, (32, 128), 4
    textbook = flops(case, pass_)
    assert textbook is not None
    skinny = 2 * m * r
    expected = {
        ("merged", "forward"): 2 * m * n * k,
        ("merged", "forward-backward"): 4 * m * n * k + skinny * (2 * n + 2 * k),
        ("bordered", "forward"): 2 * m * n * (k + 16) + skinny * k,
        ("bordered", "forward-backward"): 2 * m * n * (k + 16) + 2 * m * n * k + skinny * (4 * k + 2 * n),
    }.get((impl, pass_), textbook)
    work = build(case, "cpu")
    in_place = {torch.ops.aten.addmm_: addmm_flop.__wrapped__}  # which torch leaves out
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        out = work.forward()
        if pass_ != "forward":
            work.backward(out)
    assert counter.get_total_flops() == expected


def test_addmm_writes_no_branch(tmp_path: Path) -> None:
    """Nothing of the output's size is made but the output, nor of the input's but its gradient."""
    work = build(make_case(None, "lora", "linear", layer="square-48", impl="addmm"), "cpu")
    with Operators() as seen:
        out = work.forward()
    assert sorted(n for n in seen.names if "mm" in n) == ["aten::addmm_", "aten::mm", "aten::mm"]
    with Operators() as seen:
        work.backward(out)
    assert sum("mul" in n for n in seen.names) == 0


@pytest.mark.parametrize("conv1d", [False, True], ids=["linear", "conv1d"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_merged_says_what_rounding_takes(conv1d: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    word = "bf16" if dtype == torch.bfloat16 else "fp16"
    model = nn.ModuleDict({"layer": Conv1D(96, 64) if conv1d else nn.Linear(64, 96)}).to(dtype)
    case = make_case(None, "lora", "linear", layer="square-64", impl="merged", precision=word)
    apply(model, case)
    draw_lora_b(model)
    layer = model["layer"]
    assert isinstance(layer, MergedLoRALinear)
    branch = (layer.scale * layer.lora_b.double() @ layer.lora_a.double()).detach()
    whole = layer.weight.double() + branch
    off = float((whole.to(dtype).double() - whole).norm() / branch.norm())
    text = note(model, case)
    assert text is not None
    assert float(text.split("off by ")[1].split()[0]) == pytest.approx(off, rel=0.05)
    assert text.startswith(f"W + sBA rounded to {word}: ") and text.endswith(" of W")


def test_merged_forgets_what_is_below_half_a_unit() -> None:
    """The loss that its rows state: a step of B that moves no element of W by half a unit in its last place."""
    model = nn.ModuleDict({"layer": nn.Linear(64, 64)}).bfloat16()
    with torch.no_grad():
        model["layer"].weight.fill_(1.0)
    apply(model, make_case(None, "lora", "linear", layer="square-64", impl="merged", precision="bf16"))
    layer = model["layer"]
    assert isinstance(layer, MergedLoRALinear)
    with torch.no_grad():
        layer.lora_b.fill_(1e-4)
    layer.refresh()
    assert torch.equal(layer.whole, layer.weight) and layer.lora_b.any()


def test_bordered_copies_an_input_once(tmp_path: Path) -> None:
    work = build(make_case(None, "lora", "linear", layer="square-48", impl="bordered"), "cpu")
    with Operators() as first:
        work.forward()
    with Operators() as second:
        work.forward()
    assert "aten::copy_" in first.names and "aten::copy_" not in second.names
    assert sorted(n for n in second.names if "mm" in n) == ["aten::mm", "aten::mm"] or "aten::addmm" in second.names


@pytest.mark.slow
def test_graph_breaks_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case(None, "lora", "linear", layer="square-48", impl="compile")
    work = build(case, "cpu")
    work.backward(work.forward())
    assert note(work.model, case) == "0 graph breaks"
    monkeypatch.setattr("bench.methods.lora.eager.EagerLoRALinear.forward", _with_a_break)
    work = build(case, "cpu")
    work.backward(work.forward())
    text = note(work.model, case)
    assert text is not None and text.startswith("1 graph break: ")


def _with_a_break(self: Any, x: Tensor) -> Tensor:
    y = self.base(x)
    torch._dynamo.graph_break()
    return y + self.scale * F.linear(F.linear(x, self.lora_a), self.lora_b)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "impl", "family"),
    [("full", "compile", "llama"), ("lora", "peft-compile", "gpt2")],
)
def test_a_whole_model_compiles_into_one_graph(method: str, impl: str, family: str, tmp_path: Path) -> None:
    fields = {**FIELDS[family], "n_layer": 1} if family == "gpt2" else {**LLAMA, "num_hidden_layers": 1}
    path = write_config(tmp_path, fields)
    case = make_case(path, method, impl=impl)
    work = build(case, "cpu")
    plain = build(make_case(path, method, impl="peft" if method == "lora" else "eager"), "cpu")
    losses = []
    for w in (work, plain):
        losses.append(w.forward())
        w.backward(losses[-1])
        w.check_leaves()
    assert note(work.model, case) == "0 graph breaks"
    torch.testing.assert_close(*losses)


PEERS = """
description: what rows say of their impl
axes: {level: linear, layer: square-64, batch: 1, seq: 16, precision: bf16}
methods:
  - {method: lora, impl: [merged, bordered], rank: 4, alpha: 8, dropout: [0.0, 0.1]}
  - {method: lora, impl: [peft-fp32, compile], rank: 4, alpha: 8, dropout: 0.0}
measure: {min_samples: 8, budget_s: 0.05, wall_s: 1, warmup_s: 0.01, warmup_calls: 1}
"""


@pytest.mark.slow
def test_rows_of_peers(bench: Any, tmp_path: Path) -> None:
    sweep = tmp_path / "peers.yaml"
    sweep.write_text(PEERS)
    ended = bench("run", sweep, "--out", tmp_path / "out")
    assert ended.returncode == 0, ended.stderr
    rows = {(r["impl"], r["dropout"], r["pass"]): r for r in rows_of(tmp_path / "out")}
    assert rows["bordered", 0.0, "forward"]["status"] == "ok"
    for pass_ in ("backward", "forward-backward"):
        row = rows["bordered", 0.0, pass_]
        assert (row["status"], row["detail"]) == ("unsupported", "bordered is a baseline for forward alone")
    for impl in ("merged", "bordered"):
        assert rows[impl, 0.1, "forward"]["detail"].startswith("no adapter dropout: ")
        assert rows[impl, 0.0, "forward"]["refresh_ms"] > 0
    for pass_ in ("forward", "backward", "forward-backward"):
        assert rows["merged", 0.0, pass_]["detail"].startswith("W + sBA rounded to bf16: off by 0.00")
        assert rows["compile", 0.0, pass_]["detail"] == "0 graph breaks"
        row = rows["peft-fp32", 0.0, pass_]
        assert (row["status"], row["adapter_dtype"], row["refresh_ms"]) == ("ok", "fp32", None)
