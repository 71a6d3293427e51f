"""Every method that is not in Table 3: it learns, and what it saves is what its formula says, by itself and merged."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bitsandbytes.functional as bnb
import pytest
import torch
from safetensors.torch import load_file
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from bench.commands.train import train
from bench.errors import UserError
from bench.methods.qlora.nf4 import quantise
from bench.methods.registry import methods
from bench.train.plan import Request
from bench.train.strategy import METHODS, read_strategy, strategy_names
from tests.conftest import ROOT
from tests.mcq import make_items
from tests.train.conftest import curve_of
from tests.train.test_strategies_train import logits_of

Checkpoint = Callable[[str], Path]
StrategyFile = Callable[..., str]
Values = dict[str, torch.Tensor]

BRANCHES = "adapter_model.safetensors"
FILES = {
    "dora": BRANCHES, "lora-fa": BRANCHES, "rslora": BRANCHES, "qlora": BRANCHES,
    "qpaca": "qpaca_model.safetensors", "bitfit": "bitfit_model.safetensors",
}  # fmt: skip
LAYERS = {"llama": 7, "gpt2": 4}  # linear layers of a block


def slow(*values: str) -> Any:
    return pytest.param(*values, marks=pytest.mark.slow)


def test_every_method_has_a_strategy_and_axes() -> None:
    having = {read_strategy(name)[1].method for name in strategy_names()}
    assert having == set(METHODS)
    assert set(METHODS) - {"none"} == methods().keys(), "a method of bench run that bench train does not know"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("dora", "llama"), ("lora-fa", "gpt2"), ("rslora", "llama"), ("qlora", "gpt2"), ("qlora", "llama"),
        ("qpaca", "gpt2"), ("bitfit", "llama"), ("lisa", "gpt2"),
    ],
)  # fmt: skip
def test_it_learns(
    name: str, kind: str, checkpoint: Checkpoint, data: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    changes = {"lisa_every": 3} if name == "lisa" else {}
    request = Request(strategy_file(name, **changes), str(checkpoint(kind)), str(data), tmp_path / "out")
    assert train(request) == 0
    losses = [loss for _, loss, _ in curve_of(tmp_path / "out")]
    # Biases alone learn that the answer is one of four letters, which is 1.39, and little of which one.
    assert len(losses) == 40 and losses[-1] < (0.4 if name == "bitfit" else 0.25) * losses[0]


def weights_of(kind: str, state: Values, name: str) -> torch.Tensor:
    """W (N, K) of a layer, whichever way it is stored."""
    weight = state[f"{name}.weight"]
    return weight.t() if kind == "gpt2" else weight


def merged(name: str, weight: torch.Tensor, layer: str, delta: Values, rank: int, alpha: float) -> torch.Tensor:
    """W' (N, K) by the formula of the method, in float64."""
    if name == "qpaca":
        found = quantise(weight).dequantise(torch.float32).double()
        found[:, delta[f"{layer}.index"]] = delta[f"{layer}.columns"].double() * alpha / rank
        return found
    inside = f"base_model.model.{layer}"
    a, b = delta[f"{inside}.lora_A.weight"].double(), delta[f"{inside}.lora_B.weight"].double()
    scale = alpha / math.sqrt(rank) if name == "rslora" else alpha / rank
    if name == "qlora":
        packed, state = bnb.quantize_4bit(weight.contiguous(), quant_type="nf4", compress_statistics=True)
        return bnb.dequantize_4bit(packed, state).double() + scale * b @ a
    whole = weight.double() + scale * b @ a
    if name == "dora":
        return whole * (delta[f"{inside}.lora_magnitude_vector"].double() / whole.norm(dim=1))[:, None]
    return whole


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("dora", "gpt2"), slow("dora", "llama"), slow("lora-fa", "gpt2"), slow("lora-fa", "llama"),
        slow("rslora", "gpt2"), slow("qlora", "gpt2"), ("qlora", "llama"), ("qpaca", "gpt2"), slow("qpaca", "llama"),
    ],
)  # fmt: skip
def test_what_is_saved_is_what_the_formula_says(
    name: str, kind: str, checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    strategy = strategy_file(name, epochs=1, trainable_layers="every-2nd", dropout=0.0)
    for save in ("delta", "full"):
        assert train(Request(strategy, str(checkpoint(kind)), str(few), tmp_path / save, save=save)) == 0
    settings = json.loads((tmp_path / "delta" / "settings.json").read_text())
    delta = load_file(tmp_path / "delta" / "model" / FILES[name])
    base = AutoModelForCausalLM.from_pretrained(checkpoint(kind)).state_dict()
    full = load_file(tmp_path / "full" / "model" / "model.safetensors")
    expected = AutoModelForCausalLM.from_pretrained(tmp_path / "full" / "model").state_dict()
    assert expected.keys() == base.keys() and all(full[key].dtype == torch.float32 for key in full)
    layers = {key.removeprefix("base_model.model.").rpartition(".lora_A")[0] for key in delta if ".lora_A" in key}
    layers |= {key.removesuffix(".columns") for key in delta if key.endswith(".columns")}
    assert len(layers) == 2 * LAYERS[kind] and {int(layer.split(".")[2]) for layer in layers} == {1, 3}
    quantised = name in ("qlora", "qpaca")
    for key, tensor in expected.items():
        layer = key.removesuffix(".weight")
        if layer in layers:
            found = weights_of(kind, expected, layer).double()
            told = merged(name, weights_of(kind, base, layer), layer, delta, settings["rank"], settings["alpha"])
            torch.testing.assert_close(found, told, atol=1e-6, rtol=1e-5, msg=key)
        else:  # the frozen blocks are quantised too; what is no matrix of a block is as it was
            linear = quantised and tensor.dim() == 2 and ".layers." in key.replace(".h.", ".layers.")
            assert torch.equal(tensor, base[key]) is not linear, key
    items = make_items(20, split="test")
    torch.testing.assert_close(
        logits_of(tmp_path / "full", items), logits_of(tmp_path / "delta", items), atol=1e-4, rtol=1e-4
    )
    losses = [loss for _, loss, _ in curve_of(tmp_path / "delta")]
    assert losses[-1] < losses[0]


def test_lora_fa_trains_b_alone_and_saves_the_a_that_was_drawn(
    checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    values = []
    for rate in (1e-2, 1e-3):
        out = tmp_path / str(rate)
        strategy = strategy_file("lora-fa", epochs=1, learning_rate=rate)
        assert train(Request(strategy, str(checkpoint("gpt2")), str(few), out)) == 0
        values.append(load_file(out / "model" / BRANCHES))
        told = json.loads((out / "train.json").read_text())
        assert told["trainable_params"] == sum(t.numel() for n, t in values[-1].items() if "lora_B" in n)
    for name, tensor in values[0].items():
        assert torch.equal(tensor, values[1][name]) == ("lora_A" in name), name


def test_bitfit_changes_biases_alone(
    checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    strategy = strategy_file("bitfit", epochs=1)
    for save in ("delta", "full"):
        assert train(Request(strategy, str(checkpoint("gpt2")), str(few), tmp_path / save, save=save)) == 0
    delta = load_file(tmp_path / "delta" / "model" / FILES["bitfit"])
    base = AutoModelForCausalLM.from_pretrained(checkpoint("gpt2")).state_dict()
    full = AutoModelForCausalLM.from_pretrained(tmp_path / "full" / "model").state_dict()
    assert len(delta) == 4 * LAYERS["gpt2"] and all(t.dtype == torch.float32 for t in delta.values())
    for key, tensor in full.items():
        assert torch.equal(tensor, delta.get(key, base[key])) and torch.equal(tensor, base[key]) != (key in delta), key
    items = make_items(20, split="test")
    assert torch.equal(logits_of(tmp_path / "delta", items), logits_of(tmp_path / "full", items))


def test_bitfit_of_a_model_without_biases_is_saved_beside_it_alone(
    checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    strategy, model = strategy_file("bitfit", epochs=1, precision="bf16"), str(checkpoint("llama"))
    with pytest.raises(UserError, match=r"--save full: model\.layers\.0\.self_attn\.q_proj has no bias in LlamaFor"):
        train(Request(strategy, model, str(few), tmp_path / "full", save="full"))
    assert not (tmp_path / "full" / "train.json").exists()
    assert train(Request(strategy, model, str(few), tmp_path / "out")) == 0
    delta = load_file(tmp_path / "out" / "model" / FILES["bitfit"])
    assert len(delta) == 4 * LAYERS["llama"] and all(t.abs().max() > 0 for t in delta.values())
    assert any((t != t.bfloat16()).any() for t in delta.values()), "no value that bf16 could not hold"
    # y = x W^T + b by hooks on the plain model, in the weights' dtype
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16).eval()
    for name, bias in delta.items():
        layer = plain.get_submodule(name.removesuffix(".bias"))
        layer.register_forward_hook(lambda _m, _x, y, b=bias: y + b.bfloat16())
    from bench.train.load import load_trained_model

    ours, tokenizer = load_trained_model(str(tmp_path / "out"), "cpu")
    ids = torch.tensor(tokenizer([make_items(1)[0].question])["input_ids"])
    with torch.no_grad():
        torch.testing.assert_close(ours(input_ids=ids).logits, plain(input_ids=ids).logits, atol=0.2, rtol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("dora", "bf16"), ("lora-fa", "amp-bf16"), ("qlora", "bf16"), ("qlora", "amp-bf16"), ("qpaca", "bf16"),
        ("qpaca", "amp-bf16"), ("bitfit", "bf16"),
    ],
)  # fmt: skip
def test_masters_are_fp32_in_every_precision_and_checkpointing_trains_the_same(
    name: str, precision: str, checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    curves = []
    for word in (False, "full", "selective"):
        out = tmp_path / str(word)
        strategy = strategy_file(name, epochs=1, precision=precision, gradient_checkpointing=word)
        assert train(Request(strategy, str(checkpoint("llama")), str(few), out)) == 0
        curves.append(curve_of(out))
    values = load_file(tmp_path / "False" / "model" / FILES[name])
    assert {t.dtype for n, t in values.items() if not n.endswith("index")} == {torch.float32}
    assert curves[0] == curves[1] == curves[2] and curves[0][-1][1] < curves[0][0][1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"), [("dora", "llama"), ("qlora", "gpt2"), ("qpaca", "llama"), ("bitfit", "llama")]
)
def test_another_process_gives_the_same_logits(
    name: str, kind: str, checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    assert train(Request(strategy_file(name, epochs=1), str(checkpoint(kind)), str(few), out)) == 0
    program = (
        "import sys, torch; from pathlib import Path; from tests.mcq import make_items;"
        "from tests.train.test_strategies_train import logits_of;"
        "torch.save(logits_of(Path(sys.argv[1]), make_items(20, split='test')), sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", program, out, tmp_path / "logits"], cwd=ROOT, check=True, timeout=300)
    assert torch.equal(torch.load(tmp_path / "logits"), logits_of(out, make_items(20, split="test")))
