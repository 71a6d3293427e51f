"""Requests that cannot be carried out: told at once, with what to pass instead, and nothing is changed."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from bench.commands.train import train
from bench.errors import UserError
from bench.train.load import load_trained_model
from bench.train.plan import Request
from tests.conftest import Bench, Cli

Checkpoint = Callable[[str], Path]
StrategyFile = Callable[..., str]


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        ("config.json", "holds no config"),
        ("model.safetensors", "holds no weights"),
        ("tokenizer.json", "holds no tokenizer"),
        (None, "no such folder, and not the id of a model on the Hub"),
    ],
)
def test_an_incomplete_checkpoint_is_told(
    missing: str | None, told: str, checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    model = tmp_path / "copy"
    if missing:
        shutil.copytree(checkpoint("llama"), model)
        (model / missing).unlink()
    with pytest.raises(UserError) as error:
        train(Request(strategy_file("paca"), str(model), str(few), tmp_path / "out"))
    assert told in str(error.value) and str(model) in str(error.value)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=told):
        load_trained_model(str(model), "cpu")


def test_a_missing_shard_and_torn_weights_are_told(
    checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    model = tmp_path / "copy"
    shutil.copytree(checkpoint("llama"), model)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    request = Request(strategy_file("paca"), str(model), str(few), tmp_path / "out")
    with pytest.raises(UserError, match=r"cannot be loaded \(SafetensorError"):
        train(request)
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-00002.safetensors"}}))
    with pytest.raises(UserError, match=r"names 'model-00002\.safetensors', which is not there"):
        train(request)


@pytest.mark.slow
def test_without_network_a_hub_id_is_answered_with_what_to_pass(bench: Bench, few: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    env = bench.env | {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "cache")}
    env.pop("HF_HUB_OFFLINE", None)
    base = ("train", "--strategy", "lora", "--precision", "fp32", "--out", out)
    for flags, asked, said in (
        (("--model", "meta-llama/Llama-2-7b-hf", "--data", few), "model 'meta-llama/Llama-2-7b-hf'", "Llama-2-7b-hf"),
        (("--model", "x", "--data", "cais/mmlu"), "data 'cais/mmlu'", "--repo-type dataset --local-dir mmlu"),
    ):
        done = bench(*base, *flags, env=env)
        assert done.returncode == 2 and not out.exists()
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith(f"error: {asked}: no such folder here") and "hf download" in last and said in last


def test_flags_that_do_not_fit_are_told(
    checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    def told(strategy: str, **flags: object) -> str:
        options = {"data": str(few), "device": "cpu"} | flags
        with pytest.raises(UserError) as error:
            train(Request(strategy, str(checkpoint("gpt2")), out=tmp_path / "a" / "out", **options))  # type: ignore[arg-type]
        assert not (tmp_path / "a").exists(), "even where the model had to be loaded to know"
        return str(error.value)

    assert "amp-fp16 needs a GPU; on the CPU pass --precision fp32" in told("lora")
    assert "--data: a JSONL file" in told("lora", data=None)
    assert "--impl: 'fast' is not valid. Valid: auto, peft, triton." in told("lora", impl="fast")
    assert "--save: 'all' is not valid" in told("lora", save="all")
    assert "for strategies of method lora, dora and lora-fa; this" in told(strategy_file("paca"), impl="triton")
    assert "this one is qlora" in told(strategy_file("qlora"), impl="triton")
    assert "'q_proj' is no linear layer of GPT2LMHeadModel; it has c_attn" in told(
        strategy_file("paca", targets=["q_proj"])
    )
    assert "'9': the model has 4 blocks" in told(strategy_file("lora", trainable_layers="9"))
    assert "rank is 4096, but transformer.h.0.attn.c_attn has 64" in told(strategy_file("paca", rank=4096))


def test_what_cannot_train_here_is_told_before_anything_is_loaded(
    few: Path, strategy_file: StrategyFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench.train import plan

    found = plan.version
    monkeypatch.setattr(plan, "version", lambda package: None if package == "bitsandbytes" else found(package))
    request = Request(strategy_file("qlora"), "nowhere/at-all", str(few), tmp_path / "out")
    with pytest.raises(UserError, match=r"^method qlora needs bitsandbytes, .* Install it: pip install .*\[quant\]"):
        train(request)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"^trainable_layers lisa-2 trains in one process"):
        train(replace(request, strategy=strategy_file("lisa")))
    monkeypatch.delenv("WORLD_SIZE")
    paged = strategy_file("lisa", optimizer="paged-adamw-8bit")
    with pytest.raises(UserError, match=r"lisa\.yaml.*never frees paged states, .* stay\. Take adamw-8bit\."):
        train(replace(request, strategy=paged))
    assert not (tmp_path / "out").exists()


def test_an_optimizer_that_this_machine_cannot_have_is_told(
    checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(word: str) -> str:
        strategy, model = strategy_file("lora", optimizer=word), str(checkpoint("gpt2"))
        with pytest.raises(UserError) as error:
            train(Request(strategy, model, str(few), tmp_path / "out", device="cpu"))
        assert not (tmp_path / "out").exists()
        return str(error.value)

    monkeypatch.setattr("bench.methods.requirements.find_spec", lambda name: object())
    assert told("paged-adamw").endswith("on a CPU there is nothing to page; or take optimizer adamw")
    monkeypatch.setattr("bench.methods.requirements.find_spec", lambda name: None)
    assert told("adamw-8bit").startswith("optimizer adamw-8bit needs the package bitsandbytes: pip install")


def test_what_qlora_trained_on_odd_rows_cannot_be_loaded_on_a_cpu(
    checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    """Trained by lora here, since on a CPU qlora refuses such a model to begin with."""
    pytest.importorskip("bitsandbytes")
    model, out = tmp_path / "odd", tmp_path / "out"
    shutil.copytree(checkpoint("llama"), model)
    config = LlamaConfig.from_pretrained(model)
    config.intermediate_size = 96
    LlamaForCausalLM(config).save_pretrained(model)
    assert train(Request(strategy_file("lora", epochs=1), str(model), str(few), out, device="cpu")) == 0
    result = json.loads((out / "train.json").read_text())
    (out / "train.json").write_text(json.dumps(result | {"method": "qlora"}))
    with pytest.raises(UserError) as error:
        load_trained_model(str(out), "cpu")
    assert str(error.value) == (
        f"{out}: on a CPU bitsandbytes dequantises rows wrongly that are no multiple of 64 values, and"
        " model.layers.0.mlp.down_proj has 96; load it on a GPU"
    )


def test_a_model_too_large_for_the_gpu_is_told(
    checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory may end where the model goes to the GPU, before a step was taken."""
    from transformers import Trainer

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trainer, "__init__", full)
    with pytest.raises(UserError, match=r"out of GPU memory .* Pass --precision bf16"):
        train(Request(strategy_file("paca"), str(checkpoint("llama")), str(few), tmp_path / "out"))


def test_what_ends_one_process_of_several_is_told_by_it(
    checkpoint: Checkpoint,
    few: Path,
    strategy_file: StrategyFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise UserError("out of GPU memory")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    request = Request(strategy_file("paca"), str(checkpoint("llama")), str(few), tmp_path / "out")
    for name, value in (("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)
    assert train(request, fail) == 2
    assert capsys.readouterr().err == "error: process 1: out of GPU memory\n"
    monkeypatch.setenv("RANK", "0")
    assert train(request, stop) == 130
    assert "checkpoint: torchrun --nproc-per-node 2 -m bench" in capsys.readouterr().err


def test_bad_data_is_told_before_the_model_is_looked_at(cli: Cli, few: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text(
        few.read_text() + '{"question": "?", "choices": ["a", "b", "c", "d"], "answer": "E", "subject": ""}\n'
    )
    done = cli("train", "--strategy", "paca", "--model", "nowhere/at-all/x", "--data", bad, "--out", tmp_path / "out")
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    first, error = done.stderr.splitlines()
    assert first.startswith("paca: x, amp-fp16, ") and first.endswith("; reading bad.jsonl")
    assert error == f"error: {bad}:161: field 'answer' is 'E'. It should be A to D, or 0 to 3."


def test_another_run_s_folder_is_refused(
    checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    strategy = strategy_file("paca", epochs=1)
    model = str(checkpoint("llama"))
    assert train(Request(strategy, model, str(few), out)) == 0
    before = (out / "train.json").read_bytes()
    assert train(Request(strategy, model, str(few), out)) == 0
    assert "trained already" in capsys.readouterr().err
    for flags, told in (({"seed": 1}, "seed is 0 there and 1 here"), ({"epochs": 2}, "epochs is 1 there and 2 here")):
        with pytest.raises(UserError, match=told):
            train(Request(strategy, model, str(few), out, **flags))  # type: ignore[arg-type]
    few_more = tmp_path / "more.jsonl"
    few_more.write_text(few.read_text() + few.read_text().splitlines()[0] + "\n")
    with pytest.raises(UserError, match="data_sha256 is"):
        train(Request(strategy, model, str(few_more), out))
    assert (out / "train.json").read_bytes() == before
    assert train(Request(strategy, model, str(few), out, seed=1, fresh=True)) == 0
    (earlier,) = (out / "earlier").iterdir()
    assert (earlier / "train.json").read_bytes() == before
    assert json.loads((out / "train.json").read_text())["seed"] == 1


def test_a_refused_fresh_start_moves_nothing(
    checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name in ("settings.json", "train.json"):
        (out / name).write_text("{}")
    with pytest.raises(UserError, match="rank is 4096"):
        train(Request(strategy_file("paca", rank=4096), str(checkpoint("gpt2")), str(few), out, fresh=True))
    assert sorted(p.name for p in out.iterdir()) == ["settings.json", "train.json"]


def test_a_fresh_start_that_was_cut_off_is_one(
    checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    """Half of an earlier run is in earlier/ already: the rest follows, whatever this request is."""
    out = tmp_path / "out"
    (out / "earlier" / "x" / "model").mkdir(parents=True)
    note = {"into": "x", "names": ["model", "train.json", "settings.json"]}
    (out / "earlier" / ".moving").write_text(json.dumps(note))
    for name in ("settings.json", "train.json"):
        (out / name).write_text("{}")

    def trained(plan: Any, _: object, begin: Callable[[], None]) -> None:
        begin()
        assert sorted(p.name for p in out.iterdir()) == [".lock", "earlier", "settings.json"]
        (out / "train.json").write_text("new")

    assert train(Request(strategy_file("paca"), str(checkpoint("gpt2")), str(few), out), trained) == 0
    assert sorted(p.name for p in (out / "earlier").rglob("*")) == ["model", "settings.json", "train.json", "x"]
    assert json.loads((out / "settings.json").read_text())["method"] == "paca"


def test_one_process_at_a_time_trains_into_a_folder(
    checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    """A second one with another seed has found the folder free, and finds it taken or another's."""
    out, strategy, model = tmp_path / "out", strategy_file("paca"), str(checkpoint("gpt2"))

    def trained(plan: Any, _: object, begin: Callable[[], None]) -> None:
        with pytest.raises(UserError, match=rf"another process is training into it \({os.getpid()}\)"):
            train(Request(strategy, model, str(few), out), pytest.fail)
        begin()
        (out / "train.json").write_text("{}")

    assert train(Request(strategy, model, str(few), out), trained) == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    with pytest.raises(UserError, match="seed is 0 there and 1 here"):
        train(Request(strategy, model, str(few), out, seed=1), pytest.fail)
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before


def test_a_folder_with_other_things_is_never_touched(
    checkpoint: Checkpoint, few: Path, strategy_file: StrategyFile, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").write_text("precious")
    for fresh in (False, True):
        with pytest.raises(UserError, match=r"holds thesis\.tex and no training run"):
            train(Request(strategy_file("paca"), str(checkpoint("llama")), str(few), out, fresh=fresh))
    assert [p.name for p in out.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("content", [None, b"torn"])
def test_missing_or_torn_trained_values_are_told(content: bytes | None, checkpoint: Checkpoint, tmp_path: Path) -> None:
    base = checkpoint("llama")
    lora = {"base_model_name_or_path": str(base), "peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]}
    for kind, config, weights in (
        ("adapter", lora, "adapter_model.safetensors"),
        ("paca", {"base_model": str(base)}, "paca_model.safetensors"),
    ):
        folder = tmp_path / kind
        shutil.copytree(base, folder, ignore=shutil.ignore_patterns("model.safetensors", "config.json"))
        (folder / f"{kind}_config.json").write_text(json.dumps(config))
        if content:
            (folder / weights).write_bytes(content)
        with pytest.raises(UserError) as error:
            load_trained_model(str(folder), "cpu")
        assert str(error.value).startswith(f"{folder}: what was trained cannot be loaded (")


def test_an_unfinished_run_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text("{}")
    with pytest.raises(UserError, match="its training is not finished"):
        load_trained_model(str(tmp_path), "cpu")
