"""Checkpoints and adapters from strangers: none of their code runs, nothing is asked, a sentence says what is wrong."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from bench.commands.train import train
from bench.errors import UserError
from bench.train import checkpoint as checkpoints
from bench.train.load import find, load_trained_model
from bench.train.plan import Plan, Request
from bench.train.run import train_model
from bench.train.strategy import STRATEGIES
from tests.conftest import ROOT, Cli
from tests.mcq import make_model, make_tokenizer

StrategyFile = Callable[..., str]


class Mark:
    """Pickled, it makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.path),)


def plant(path: Path, mark: Path, form: str = "zip") -> None:
    """A file as torch.save writes it, or a bare pickle, that leaves a mark where somebody unpickles it."""
    if form == "zip":
        torch.save({"x": torch.zeros(2), "y": Mark(mark)}, path)
    else:
        path.write_bytes(pickle.dumps(Mark(mark)))


def test_the_mark_is_left_where_a_pickle_is_loaded(tmp_path: Path) -> None:
    for form in ("zip", "bare"):
        plant(tmp_path / form, tmp_path / f"{form} mark", form)
    torch.load(tmp_path / "zip", weights_only=False)
    pickle.loads((tmp_path / "bare").read_bytes())
    assert (tmp_path / "zip mark").is_dir() and (tmp_path / "bare mark").is_dir()


@pytest.fixture(autouse=True)
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks on the terminal, or the Hub, fails the test."""

    def asked(*_: object) -> str:
        raise AssertionError("somebody asked")

    monkeypatch.setattr("builtins.input", asked)
    monkeypatch.setattr("socket.socket.connect", asked)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base")
    make_model("llama", folder, layers=1)
    make_tokenizer(folder)
    return folder


@pytest.fixture
def base(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "base"))


@pytest.fixture
def adapter(made: Path, tmp_path: Path) -> Path:
    """A LoRA on it, as PEFT saves it."""
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(made), LoraConfig(r=2, target_modules=["q_proj"]))
    model.save_pretrained(str(tmp_path / "adapter"))
    make_tokenizer(tmp_path / "adapter")
    return tmp_path / "adapter"


def change(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def refusal(source: object) -> str:
    with pytest.raises(UserError) as error:
        load_trained_model(str(source), "cpu")
    assert len(str(error.value).splitlines()) == 1
    return str(error.value)


@pytest.mark.parametrize("form", ["zip", "bare"])
def test_a_pickle_in_place_of_weights_is_not_run(form: str, base: Path, adapter: Path, tmp_path: Path) -> None:
    (base / "model.safetensors").unlink()
    (adapter / "adapter_model.safetensors").unlink()
    plant(base / "pytorch_model.bin", tmp_path / "mark", form)
    plant(adapter / "adapter_model.bin", tmp_path / "mark", form)
    for told in map(refusal, (base, adapter)):  # nobody is told to load it for all that
        assert "cannot be loaded" in told and "weights_only" not in told
    assert not (tmp_path / "mark").exists()


EVIL = """
import os
os.mkdir({mark!r})
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig): model_type = "evil"
class Model(LlamaForCausalLM): pass
class Tokenizer(PreTrainedTokenizerFast): pass
"""
CLASSES = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": ["evil.Tokenizer", None]}


@pytest.mark.parametrize(
    ("file", "fields", "told"),
    [
        ("config.json", {"model_type": "evil", "auto_map": CLASSES}, "the code that the checkpoint brings"),
        ("config.json", {"auto_map": CLASSES}, None),
        ("tokenizer_config.json", {"tokenizer_class": "Evil", "auto_map": CLASSES}, "the code that the checkpoint"),
        ("config.json", {"quantization_config": {"quant_method": "bitsandbytes"}}, "quantization_config is"),
        ("config.json", {"quantization_config": {"quant_method": "evil"}}, "quantization_config is"),
        ("config.json", {"attn_implementation": "evil/kernels"}, "attn_implementation is"),
        ("config.json", {"_attn_implementation": "evil/kernels:f"}, "_attn_implementation is"),
        ("config.json", {"experts_implementation": "evil/kernels"}, "experts_implementation is"),
        ("config.json", {"transformers_weights": "../other/model.safetensors"}, "transformers_weights is"),
        ("config.json", {"dtype": "load"}, "cannot be loaded"),
        ("config.json", {"vocab_size": 2**27}, "its weights have other sizes than its config.json says"),
        ("config.json", {"num_hidden_layers": 2}, "no file holds model.layers.1"),
    ],
)
def test_what_would_run_code_or_fetch_it_is_refused(
    file: str, fields: dict[str, Any], told: str | None, base: Path, tmp_path: Path
) -> None:
    (base / "evil.py").write_text(EVIL.format(mark=str(tmp_path / "mark")))
    change(base / file, **fields)
    if told is None:
        model, _ = load_trained_model(str(base), "cpu")
        assert type(model) is LlamaForCausalLM
    else:
        assert told in refusal(base)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"auto_mapping": {"base_model_class": "Model", "parent_library": "evil"}}, None),
        ({"megatron_config": {"a": 1}, "megatron_core": "evil"}, "megatron_config"),
        ({"peft_type": "PROMPT_TUNING"}, "peft_type"),
        ({"base_model_name_or_path": None}, "does not say which checkpoint"),
        ({"base_model_name_or_path": "a\0b"}, "no such folder"),
    ],
)
def test_an_adapter_s_fields_run_nothing(
    fields: dict[str, Any], told: str | None, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil.py").write_text(EVIL.format(mark=str(tmp_path / "mark")))
    monkeypatch.syspath_prepend(str(tmp_path))
    change(adapter / "adapter_config.json", **fields)
    if told is None:
        load_trained_model(str(adapter), "cpu")
    else:
        assert told in refusal(adapter)
    assert "evil" not in sys.modules and not (tmp_path / "mark").exists()


def test_a_checkpoint_with_an_adapter_inside_is_refused(base: Path, few: Path, strategy_file: StrategyFile) -> None:
    """transformers would load the adapter as well."""
    (base / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/model", "peft_type": "LORA"}')
    with pytest.raises(UserError, match=r"no whole checkpoint: it holds adapter_config\.json"):
        train(Request(strategy_file("paca"), str(base), str(few), base.parent / "out"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "fields", "told"),
    [
        ("config.json", {}, None),
        ("config.json", {"model_type": "evil", "auto_map": CLASSES}, "the code that the checkpoint brings"),
        ("config.json", {"quantization_config": {"quant_method": "awq"}}, "quantization_config is"),
        ("adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "evil/other"}, "no whole checkpoint"),
    ],
)
def test_a_checkpoint_of_the_hub_is_held_to_the_same(
    file: str, fields: dict[str, Any], told: str | None, base: Path, tmp_path: Path
) -> None:
    """One in the cache, since there is no network."""
    (base / "evil.py").write_text(EVIL.format(mark=str(tmp_path / "mark")))
    (base / file).touch()
    (base / file).write_text(json.dumps(json.loads((base / file).read_text() or "{}") | fields))
    cached = tmp_path / "hub" / "models--evil--model"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("0" * 40)
    shutil.copytree(base, cached / "snapshots" / ("0" * 40))
    code = "import sys; from bench.train.load import load_trained_model; load_trained_model('evil/model', 'cpu')"
    env = os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 0 if told is None else "UserError" in last and told in last, last
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("part", ["../model.safetensors", "/etc/passwd", "", ".", "..", "a/b", "a\0b", "x" * 300])
def test_an_index_names_files_of_its_folder(part: str, base: Path) -> None:
    shutil.copy(base / "model.safetensors", base.parent)
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": part}}))
    said = refusal(base)
    assert said.startswith(f"{base / 'model.safetensors.index.json'}: names ") and "copy the checkpoint again" in said


def test_a_model_that_is_no_folder_is_told(base: Path, few: Path, cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    for model in (tmp_path / "pipe", "/dev/zero", tmp_path / "empty", base / "config.json", "x" * 5000, "a\nb", ""):
        for command in (["train", "--strategy", "paca", "--model", model], ["evaluate", model]):
            done = cli(*command, "--data", few, "--out", tmp_path / "out")
            *going_on, error = done.stderr.splitlines()
            assert done.returncode == 2 and error.startswith("error: "), done.stderr
            assert len(going_on) <= 2 and max(map(len, going_on), default=0) < 200, going_on
    assert not (tmp_path / "out").exists()
    for name in ("a\0b", "9" * 5000, "ä"):
        assert "no such folder" in (said := refusal(name)) and len(said) < 500


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_a_pipe_in_a_checkpoint_is_not_waited_at(name: str, base: Path) -> None:
    (base / name).unlink()
    os.mkfifo(base / name)
    assert refusal(base).startswith(f"{base / name}: neither file nor folder")


@pytest.fixture(scope="module")
def cut(made: Path, few: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Request, Path]:
    """A run that has its last step to go."""
    place = tmp_path_factory.mktemp("cut")
    text = (STRATEGIES / "paca.yaml").read_text()
    (place / "s.yaml").write_text(text)
    request = Request(
        str(place / "s.yaml"), str(made), str(few), place / "out", epochs=1, batch=16, accumulation=2,
        precision="fp32", checkpoint_every=2, device="cpu",
    )  # fmt: skip

    def fail(plan: Plan, say: Callable[[str], None], begin: Callable[[], None]) -> None:
        begin()
        (plan.request.out / "model").write_text("in the way")
        train_model(plan, say, begin)

    with pytest.raises(UserError):
        train(request, fail)
    (place / "out" / "model").unlink()
    shutil.rmtree(place / "out" / "checkpoints" / "checkpoint-5")
    return request, place / "out"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
@pytest.mark.parametrize("form", ["zip", "bare"])
def test_a_pickle_in_a_training_checkpoint_is_not_run(
    name: str, form: str, cut: tuple[Request, Path], tmp_path: Path
) -> None:
    request, out = cut
    newest = checkpoints.newest(out / "checkpoints")
    assert newest is not None and (newest.path / name).is_file()
    shutil.copytree(newest.path, tmp_path / "whole")
    plant(newest.path / name, tmp_path / "mark", form)
    (newest.path / "complete.json").unlink()
    checkpoints.complete(newest.path, newest.step, newest.elapsed_s)
    try:
        with pytest.raises(UserError, match=r"cannot be loaded \(.*Remove this checkpoint") as error:
            train(request)
        assert str(newest.path) in str(error.value) and not (tmp_path / "mark").exists()
    finally:
        shutil.rmtree(newest.path)
        shutil.copytree(tmp_path / "whole", newest.path)


@pytest.mark.slow
def test_such_a_run_goes_on_once_its_checkpoint_is_whole_and_its_end_is_read(
    cut: tuple[Request, Path], tmp_path: Path
) -> None:
    request, out = cut
    (out / "metrics.jsonl").write_text("")
    train(request)
    assert json.loads((out / "train.json").read_text())["steps"] == 5
    assert find(str(out)).kind == "paca_config.json"
    (out / "train.json").write_text("{}")
    with pytest.raises(UserError, match=r"train\.json: \w+: Field required.*--fresh"):
        train(request)
