"""What each impl that people use today does and costs: its products, its rounding, its compilation, its rows."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, addmm_flop
from transformers.pytorch_utils import Conv1D

from bench.methods.lora.merged import MergedLoRALinear
from bench.methods.refresh import draw_lora_b
from bench.methods.registry import apply, note
from bench.models.build import build
from bench.roofline.roofline import flops
from tests.conftest import rows_of
from tests.models.tiny import GPT2, LLAMA, NO_DROPOUT, Operators, make_case, write_config


@pytest.mark.parametrize("pass_", ["forward", "forward-backward"])
@pytest.mark.parametrize("impl", ["eager", "addmm", "merged", "bordered", "peft"])
def test_products_of_an_impl(impl: str, pass_: str, tmp_path: Path) -> None:
    """As counted by torch. merged computes no branch, and makes S in backward alone; bordered's K is padded by 16."""
    case = make_case(write_config(tmp_path, {**GPT2, **NO_DROPOUT}), "lora", "linear", layer="mlp.c_fc", impl=impl)
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
    case = make_case(None, "lora", "linear", layer="square-48", compile="default")
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
    [("full", "eager", "llama"), ("lora", "peft", "gpt2")],
)
def test_a_whole_model_compiles_into_one_graph(method: str, impl: str, family: str, tmp_path: Path) -> None:
    fields = {**GPT2, **NO_DROPOUT, "n_layer": 1} if family == "gpt2" else {**LLAMA, "num_hidden_layers": 1}
    path = write_config(tmp_path, fields)
    case = make_case(path, method, impl=impl, compile="default")
    work = build(case, "cpu")
    plain = build(make_case(path, method, impl=impl), "cpu")
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
        assert rows["eager", 0.0, pass_]["detail"] == "0 graph breaks"
        assert rows["eager", 0.0, pass_]["compile"] == "default", "the former word for it"
        row = rows["peft-fp32", 0.0, pass_]
        assert (row["status"], row["adapter_dtype"], row["refresh_ms"]) == ("ok", "fp32", None)
