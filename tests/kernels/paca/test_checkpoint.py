"""What save_paca() writes, what load_paca() makes of it, and what save_pretrained() leaves."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from torch import nn
from transformers import AutoModelForCausalLM

from kernels.paca import load_paca, merge_paca, paca, remove_paca, save_paca
from kernels.paca.model import paca_layers
from tests.kernels.paca.paca_models import VOCAB, is_fresh, make, same, step, trained, weights

FAMILIES = ["gpt2", "llama", "gpt_neox"]
IDS = torch.arange(3, 12)[None]


def tuned(family: str = "gpt2", dtype: torch.dtype = torch.float32, **options: Any) -> nn.Module:
    """A model after two steps under paca()."""
    model = paca(make(family, dtype), 4, 10, **options)
    optimizer = torch.optim.SGD(trained(model), lr=0.5)
    for seed in range(2):
        step(model, optimizer, seed)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_saved_and_loaded_is_the_same_and_trains_on(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = tuned(family, dtype, layers=range(1, 4), seed=7)
    save_paca(model, tmp_path / "new" / "delta")
    assert sorted(p.name for p in (tmp_path / "new" / "delta").iterdir()) == [
        "paca_config.json",
        "paca_model.safetensors",
    ]
    loaded = load_paca(make(family, dtype), tmp_path / "new" / "delta")
    assert same(dict(model.state_dict()), dict(loaded.state_dict())) and loaded.paca_config == model.paca_config
    assert [n for n, p in loaded.named_parameters() if p.requires_grad] == [f"{n}.columns" for n in paca_layers(model)]
    losses = [step(m, torch.optim.SGD(trained(m), lr=0.5), 5) for m in (model, loaded)]
    assert losses[0] == losses[1] and is_fresh(loaded)
    assert same(weights(model), weights(loaded))
    assert same(weights(remove_paca(loaded)), weights(make(family, dtype))), "exactly the pretrained weights"


@pytest.mark.parametrize("family", FAMILIES)
def test_for_inference_and_merged_and_in_transformers_own_format(family: str, tmp_path: Path) -> None:
    model = tuned(family).eval()
    expected, before = model(input_ids=IDS).logits, dict(model.state_dict())
    save_paca(model, tmp_path / "delta")
    save_paca(model, tmp_path / "merged", merged=True)
    assert same(dict(model.state_dict()), before), "the model in memory is unchanged"
    plain = load_paca(make(family), tmp_path / "delta", trainable=False)
    assert not paca_layers(plain) and not plain.training
    again, info = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    merged = merge_paca(model)
    assert [n for n, _ in merged.named_modules()] == [n for n, _ in make(family).named_modules()]
    for other in (plain, again.eval(), merged):
        assert torch.equal(other(input_ids=IDS).logits, expected)
        assert same(weights(other), weights(merged))


@pytest.mark.parametrize("family", FAMILIES)
def test_save_pretrained_of_an_adapted_model_is_a_checkpoint_of_the_plain_one(family: str, tmp_path: Path) -> None:
    model = tuned(family)
    model.save_pretrained(tmp_path)
    plain, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert {name.rpartition(".")[2] for name in info["unexpected_keys"]} == {"columns", "index", "pretrained"}
    assert same(weights(plain), weights(model))


def test_the_base_model_by_its_path(tmp_path: Path) -> None:
    make("llama", torch.bfloat16).save_pretrained(tmp_path / "base")
    model = paca(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), rank=4, alpha=8)
    step(model, torch.optim.SGD(trained(model), lr=0.5))
    save_paca(model, tmp_path / "delta")
    assert json.loads((tmp_path / "delta" / "paca_config.json").read_text())["base_model"] == str(tmp_path / "base")
    loaded = load_paca(str(tmp_path / "base"), tmp_path / "delta")
    assert isinstance(loaded, transformers.LlamaForCausalLM) and loaded.dtype == torch.bfloat16
    assert same(dict(loaded.state_dict()), dict(model.state_dict()))
    encoder = transformers.BertConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4
    )
    transformers.BertForMaskedLM(encoder).save_pretrained(tmp_path / "bert")
    bert = paca(transformers.BertForMaskedLM.from_pretrained(tmp_path / "bert"), 4, 8)
    save_paca(bert, tmp_path / "bert-delta")
    assert isinstance(load_paca(str(tmp_path / "bert"), tmp_path / "bert-delta"), transformers.BertForMaskedLM)


def test_a_tied_head_stays_tied(tmp_path: Path) -> None:
    model = tuned("gpt2")
    assert model.lm_head.weight is model.transformer.wte.weight
    save_paca(model, tmp_path, merged=True)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert plain.lm_head.weight is plain.transformer.wte.weight
    assert same(weights(plain), weights(model))


def test_a_save_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = tuned()
    save_paca(first, tmp_path)

    def full(_tensors: Any, path: Path, _metadata: Any) -> None:
        path.write_bytes(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        save_paca(tuned(seed=3), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert same(dict(load_paca(make("gpt2"), tmp_path).state_dict()), dict(first.state_dict()))


def _edit_config(**changes: Any) -> Any:
    """Changes paca_config.json, and its copy beside the tensors with it."""

    def edit(folder: Path) -> None:
        config = json.loads((folder / "paca_config.json").read_text())
        for key, value in changes.items():
            config.pop(key)
            if value is not None:
                config[key] = value
        _write(folder, config, safetensors.torch.load_file(folder / "paca_model.safetensors"))

    return edit


def _edit_tensors(change: Any) -> Any:
    def edit(folder: Path) -> None:
        tensors = safetensors.torch.load_file(folder / "paca_model.safetensors")
        change(tensors)
        _write(folder, json.loads((folder / "paca_config.json").read_text()), tensors)

    return edit


def _write(folder: Path, config: Any, tensors: dict[str, torch.Tensor]) -> None:
    text = json.dumps(config)
    (folder / "paca_config.json").write_text(text)
    safetensors.torch.save_file(tensors, folder / "paca_model.safetensors", {"format": "pt", "paca_config": text})


NAME = "transformer.h.1.mlp.c_fc"
WIDE = {NAME: {"in": 64, "out": 128}}
BAD: dict[str, tuple[Any, str]] = {
    "format": (_edit_config(format=3), r"paca_config.json: format is 3, expected 1 or 2"),
    "no-rank": (_edit_config(rank=None), r"paca_config.json: the key 'rank' is missing"),
    "rank": (_edit_config(rank=3), r"paca_model.safetensors: .*columns has shape \(\d+, 4\), expected \(\d+, 3\)"),
    "alpha": (_edit_config(alpha="8"), r"alpha is '8', expected a positive number"),
    "dtype": (_edit_config(adapter_dtype="float3"), r"paca_config.json: .*float3"),
    "architecture": (_edit_config(architecture=5), r"paca_config.json: architecture is 5, expected null or str"),
    "rows": (_edit_config(embedding_rows="9"), r"paca_config.json: embedding_rows is '9', expected null or int"),
    "shapes": (_edit_config(shapes=WIDE), rf"{NAME} has \(in, out\) features \(64, 128\).*\(32, 128\)"),
    "name": (
        _edit_config(shapes={"model.q": {"in": 1, "out": 1}}),
        r"model.q is no layer of GPT2LMHeadModel.*transformer.h.0.attn.c_attn",
    ),
    "lacks": (_edit_tensors(lambda t: t.pop(f"{NAME}.index")), rf"safetensors: {NAME}.index is missing"),
    "extra": (_edit_tensors(lambda t: t.update(z=torch.ones(1))), r"safetensors: z is not expected"),
    "twice": (_edit_tensors(lambda t: t[f"{NAME}.index"].fill_(1)), rf"{NAME}.index .*holds 1 more than once"),
    "beyond": (_edit_tensors(lambda t: t[f"{NAME}.index"].add_(40)), rf"{NAME}.index .*expected 0 <= index < 32"),
    "torn": (lambda f: (f / "paca_model.safetensors").write_bytes(b"torn"), r"paca_model.safetensors cannot be read"),
    "no-json": (lambda f: (f / "paca_config.json").write_text("{"), r"paca_config.json is no JSON"),
    "of-two-saves": (lambda f: (f / "paca_config.json").write_text('{"format": 1}'), r"was saved with another"),
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save_paca(tuned(), folder)
    return folder


@pytest.mark.parametrize("case", BAD)
def test_a_bad_checkpoint_is_refused_and_the_model_stays(case: str, saved: Path, tmp_path: Path) -> None:
    spoil, words = BAD[case]
    for path in saved.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    spoil(tmp_path)
    model = make("gpt2")
    with pytest.raises(ValueError, match=words):
        load_paca(model, tmp_path)
    assert not paca_layers(model) and same(weights(model), weights(make("gpt2")))
    assert all(p.requires_grad for p in model.parameters())


def test_a_base_whose_weights_are_tied_by_now_is_refused(saved: Path) -> None:
    model = make("gpt2")
    first, second = (model.transformer.h[i].attn.c_attn for i in (0, 1))
    second.weight = first.weight
    with pytest.raises(ValueError, match=r"c_attn cannot be adapted: its weight is tied to"):
        load_paca(model, saved)
    assert not paca_layers(model)


def test_missing_files_and_models_that_do_not_fit(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"paca_config.json is missing.*save_paca"):
        load_paca(make("gpt2"), tmp_path)
    with pytest.raises(ValueError, match=r"transformer.h.0.attn.c_attn is no layer of LlamaForCausalLM"):
        load_paca(make("llama"), saved)
    with pytest.raises(ValueError, match=r"c_attn has .* features \(32, 96\), but the model's has \(64, 192\)"):
        load_paca(make("gpt2", n_embd=64), saved)
    with pytest.raises(ValueError, match="expected the plain base model"):
        load_paca(tuned(), saved)
    with pytest.raises(ValueError, match="no PaCA layers"):
        save_paca(make("gpt2"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_state_dicts_that_hold_a_part_are_refused() -> None:
    model, plain = tuned(), make("gpt2")
    with pytest.raises(RuntimeError, match=r"c_attn. has weight without columns, index, pretrained.*before paca\(\)"):
        tuned().load_state_dict(plain.state_dict(), strict=False)
    columns = {n: t for n, t in model.state_dict().items() if n.endswith(("columns", "index"))}
    with pytest.raises(RuntimeError, match=r"has columns, index without weight, pretrained.*load_paca\(\)"):
        tuned().load_state_dict(columns, strict=False)
    fresh = paca(make("gpt2"), 4, 10, seed=9)
    fresh.load_state_dict(model.state_dict())
    assert same(dict(fresh.state_dict()), dict(model.state_dict()))
    fresh.load_state_dict({}, strict=False)
