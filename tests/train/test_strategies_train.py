"""Training by Table 3's strategies: it learns, changes what it declares alone, and what it saves loads elsewhere."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from bench.commands.train import train
from bench.train.data import LETTERS, Item, prompt, target
from bench.train.load import load_trained_model
from bench.train.metrics import training_time
from bench.train.plan import Request
from tests.mcq import WORDS, make_items
from tests.train.conftest import curve_of, metrics_of

FIRST = {"lora": 0, "paca": 0, "upper-half-paca": 2, "three-quarters-paca": 1}  # the lowest of 4 blocks that trains
# The same code over fewer blocks: they differ in what test_paca_changes_its_columns_alone asks.
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in ("upper-half-paca", "three-quarters-paca")]
both_kinds = pytest.mark.parametrize("kind", ["llama", pytest.param("gpt2", marks=pytest.mark.slow)])

Checkpoint = Callable[[str], Path]
StrategyFile = Callable[..., str]


def logits_of(source: Path, items: list[Item]) -> torch.Tensor:
    model, tokenizer = load_trained_model(str(source), "cpu")
    ids = torch.tensor(tokenizer([prompt(i) for i in items])["input_ids"])
    with torch.no_grad():
        return model(input_ids=ids).logits[:, -1]


def accuracy(source: Path, items: list[Item]) -> dict[str, float]:
    """The share of right answers by subject, computed directly: the letter of the highest logit after the prompt."""
    _, tokenizer = load_trained_model(str(source), "cpu")
    letters = tokenizer.convert_tokens_to_ids(list(LETTERS))
    right = logits_of(source, items)[:, letters].argmax(-1) == torch.tensor([i.answer for i in items])
    return {s: right[[i.subject == s for i in items]].float().mean().item() for s in WORDS}


@both_kinds
@pytest.mark.parametrize("name", [pytest.param("lora", marks=pytest.mark.slow), "paca", *SLOW])
def test_it_learns_in_all_four_categories(
    kind: str, name: str, checkpoint: Checkpoint, data: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert train(Request(strategy_file(name), str(checkpoint(kind)), str(data), out)) == 0
    losses = [m["loss"] for m in metrics_of(out)]
    assert len(losses) == 40 and losses[-1] < 0.3 * losses[0]
    items = make_items(160, split="test")
    before, after = accuracy(checkpoint(kind), items), accuracy(out, items)
    for subject in WORDS:
        assert after[subject] > 0.75 and after[subject] > before[subject] + 0.25, subject


@both_kinds
@pytest.mark.parametrize(
    "name", [pytest.param("paca", marks=pytest.mark.slow), "upper-half-paca", "three-quarters-paca"]
)
def test_paca_changes_its_columns_alone(
    kind: str, name: str, checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    strategy = strategy_file(name, epochs=1)
    for save in ("delta", "full"):
        assert train(Request(strategy, str(checkpoint(kind)), str(few), tmp_path / save, save=save)) == 0
    delta = load_file(tmp_path / "delta" / "model" / "paca_model.safetensors")
    layers = {n.removesuffix(".columns") for n in delta if n.endswith(".columns")}
    assert len(layers) == (4 - FIRST[name]) * (7 if kind == "llama" else 4)
    assert {int(layer.split(".")[2]) for layer in layers} == set(range(FIRST[name], 4))
    base = AutoModelForCausalLM.from_pretrained(checkpoint(kind)).state_dict()
    full = AutoModelForCausalLM.from_pretrained(tmp_path / "full" / "model").state_dict()
    assert base.keys() == full.keys()
    for key, tensor in base.items():
        changed = tensor != full[key]
        layer = key.removesuffix(".weight")
        if layer not in layers:
            assert not changed.any(), key
        else:
            columns = changed.any(1 if kind == "gpt2" else 0).nonzero().flatten()  # Conv1D stores (in, out)
            assert columns.tolist() == delta[f"{layer}.index"].tolist(), key
    items = make_items(20, split="test")
    assert torch.equal(logits_of(tmp_path / "delta", items), logits_of(tmp_path / "full", items))


def test_lora_changes_what_its_branches_say(
    checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    strategy = strategy_file("lora", epochs=1, trainable_layers="upper-1/2")
    for save in ("delta", "full"):
        assert train(Request(strategy, str(checkpoint("gpt2")), str(few), tmp_path / save, save=save)) == 0
    delta = load_file(tmp_path / "delta" / "model" / "adapter_model.safetensors")
    assert all(t.dtype == torch.float32 for t in delta.values())
    base = AutoModelForCausalLM.from_pretrained(checkpoint("gpt2")).state_dict()
    full = AutoModelForCausalLM.from_pretrained(tmp_path / "full" / "model").state_dict()
    kept, given = (
        json.loads((d / "config.json").read_text()) for d in (tmp_path / "full" / "model", checkpoint("gpt2"))
    )
    assert kept["use_cache"] == given["use_cache"]
    seen = 0
    for key, tensor in base.items():
        name = f"base_model.model.{key.removesuffix('.weight')}"
        if f"{name}.lora_A.weight" in delta:
            a, b = delta[f"{name}.lora_A.weight"].double(), delta[f"{name}.lora_B.weight"].double()
            torch.testing.assert_close(full[key].double(), tensor.double() + 4 * (b @ a).T, atol=1e-6, rtol=1e-5)
            assert not torch.equal(full[key], tensor), key
            seen += 1
        else:
            assert torch.equal(full[key], tensor), key
    assert seen == 2 * 4 and len(delta) == 2 * seen


def test_full_fine_tuning_as_it_ships(checkpoint: Checkpoint, few: Path, tmp_path: Path, capsys: Any) -> None:
    request = Request("full", str(checkpoint("gpt2")), str(few), tmp_path / "out", precision="fp32", batch=16)
    assert train(request) == 0
    said = capsys.readouterr().err
    assert "3 steps in all and 100 of warm-up" in said and "--warmup-steps, or warmup_steps in a strategy file" in said
    told = json.loads((tmp_path / "out" / "train.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(checkpoint("gpt2"))
    assert (told["method"], told["strategy"], told["warmup_steps"]) == ("full", "full", 100)
    assert told["trainable_params"] == sum(p.numel() for p in base.parameters())
    assert told["highest_learning_rate"] == pytest.approx(2e-5 * 2 / 100), "what the steps got, far from 2e-5"
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model").state_dict()
    assert all((after[name] != value).any() for name, value in base.named_parameters())
    again = replace(request, out=tmp_path / "warm", warmup_steps=1)
    assert train(again) == 0 and "of warm-up" not in capsys.readouterr().err
    told = json.loads((tmp_path / "warm" / "train.json").read_text())
    assert (told["warmup_steps"], told["highest_learning_rate"]) == (1, pytest.approx(2e-5))


def test_full_fine_tuning_of_upper_blocks_leaves_the_rest(
    checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    changes = {"method": "full", "rank": None, "alpha": None, "trainable_layers": "1", "learning_rate": 2e-3}
    strategy = strategy_file("paca", **changes, epochs=1, precision="bf16")
    assert train(Request(strategy, str(checkpoint("llama")), str(few), tmp_path / "out")) == 0
    told = json.loads((tmp_path / "out" / "train.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(checkpoint("llama"), dtype=torch.bfloat16).state_dict()
    after = load_file(tmp_path / "out" / "model" / "model.safetensors")
    top = [k for k in base if k.startswith("model.layers.3.")]
    assert told["trainable_params"] == sum(base[k].numel() for k in top)
    for key, tensor in base.items():
        assert after[key].dtype == (torch.float32 if key in top else torch.bfloat16), "the trained values are masters"
        assert torch.equal(after[key].bfloat16(), tensor) == (key not in top), key


@pytest.mark.parametrize("name", ["lora", "paca"])
def test_masters_are_fp32_over_a_bf16_model(
    name: str, checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    strategy = strategy_file(name, precision="bf16", epochs=1)
    assert train(Request(strategy, str(checkpoint("llama")), str(few), tmp_path / "out")) == 0
    file = "adapter_model" if name == "lora" else "paca_model"
    values = load_file(tmp_path / "out" / "model" / f"{file}.safetensors")
    assert {t.dtype for n, t in values.items() if not n.endswith("index")} == {torch.float32}
    assert any((t != t.bfloat16()).any() for t in values.values()), "no value that bf16 could not hold"
    assert curve_of(tmp_path / "out")[-1][1] < curve_of(tmp_path / "out")[0][1]


def test_what_is_written(checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path) -> None:
    from peft import PeftModel
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "out"
    strategy = strategy_file("lora", warmup_steps=2)
    assert train(Request(strategy, str(checkpoint("llama")), str(few), out, epochs=1, accumulation=3)) == 0
    told = json.loads((out / "train.json").read_text())
    _, tokenizer = load_trained_model(str(out), "cpu")
    steps = math.ceil(160 / (16 * 3))
    expected = {
        "strategy": "lora", "method": "lora", "trainable_layers": "all", "rank": 8, "alpha": 32.0, "examples": 160,
        "steps": steps, "epochs": 1, "batch": 16, "accumulation": 3, "length": 512, "device": "cpu", "gpu": None,
        "precision": "fp32", "world_size": 1, "seed": 0, "warmup_steps": 2, "learning_rate": 1e-2,
        "model": str(checkpoint("llama")), "data": str(few),
    }  # fmt: skip
    assert {key: told[key] for key in expected} == expected
    per_block = 8 * sum((64 + 64, 64 + 32, 64 + 32, 64 + 64, 64 + 128, 64 + 128, 128 + 64))
    assert told["trainable_params"] == 4 * per_block
    assert told["training_time"] == training_time(told["wall_s"])
    metrics = metrics_of(out)
    assert [m["step"] for m in metrics] == list(range(1, steps + 1))
    rates = [0, 5e-3, *(1e-2 * 0.5 * (1 + math.cos(math.pi * i / (steps - 2))) for i in range(steps - 2))]
    assert [m["learning_rate"] for m in metrics] == pytest.approx(rates)
    assert told["highest_learning_rate"] == pytest.approx(max(rates))
    per_example = [len(ids) for ids in tokenizer([prompt(i) + target(i) for i in make_items(160)])["input_ids"]]
    assert len(set(per_example)) == 1, "so that the order of examples does not matter"
    assert [m["tokens"] for m in metrics] == [n * per_example[0] for n in (48, 48, 48, 16)]
    for m in metrics:
        assert m["tokens_per_s"] == pytest.approx(m["tokens"] / m["step_s"])
        assert m["examples_per_s"] == pytest.approx(m["tokens_per_s"] / per_example[0])
    assert (told["tokens"], told["peak_of"]) == (sum(per_example), "resident set of the process")
    assert told["tokens_per_s"] == pytest.approx(told["tokens"] / told["wall_s"])
    resident = psutil.Process().memory_info().rss / 2**20
    assert told["peak_mib"] == metrics[-1]["peak_mib"] > 0.5 * resident
    assert told["final_loss"] == pytest.approx(metrics[-1]["loss"])
    assert 0 < metrics[0]["elapsed_s"] <= metrics[-1]["elapsed_s"] <= told["wall_s"] + 0.01
    events = EventAccumulator(str(out / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("train/loss")] == list(range(1, steps + 1))
    assert [e.value for e in events.Scalars("train/loss")] == pytest.approx([m["loss"] for m in metrics])
    for tag in ("tokens_per_s", "step_s", "peak_mib"):
        assert [e.value for e in events.Scalars(f"train/{tag}")] == pytest.approx([m[tag] for m in metrics])
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(checkpoint("llama")), out / "model")
    assert not (out / "checkpoints").exists()


def test_no_tuning_points_to_the_checkpoint(checkpoint: Checkpoint, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert train(Request("no-tuning", str(checkpoint("llama")), None, out)) == 0
    told = json.loads((out / "train.json").read_text())
    assert (told["method"], told["steps"], told["wall_s"], told["training_time"]) == ("none", 0, None, None)
    items = make_items(8)
    assert torch.equal(logits_of(out, items), logits_of(checkpoint("llama"), items))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lora", "paca"])
def test_gradient_checkpointing_changes_no_number(
    name: str, checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    curves = []
    for on in (False, True):
        out = tmp_path / str(on)
        strategy = strategy_file(name, gradient_checkpointing=on, epochs=1)
        assert train(Request(strategy, str(checkpoint("llama")), str(few), out)) == 0
        curves.append(curve_of(out))
    assert curves[0] == curves[1]


def test_the_paper_s_clock() -> None:
    assert [training_time(s) for s in (26221.79, 59.999, 0.0, 3599.994)] == [
        "7:17:01.79", "0:01:00.00", "0:00:00.00", "0:59:59.99",
    ]  # fmt: skip
