"""Files of checkpoints, adapters and training runs with any damage: refused in one sentence, or read."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from bench.errors import UserError, printable
from bench.train import checkpoint as checkpoints
from bench.train.bitfit import put_bitfit, save_bitfit
from bench.train.checkpoint import check_state, newest
from bench.train.folder import claim
from bench.train.load import Found, find, load_trained_model, stands_on
from bench.train.metrics import read_metrics
from bench.train.quantised import put_qpaca, save_qpaca
from bench.train.result import read_result
from kernels import save_paca
from kernels.paca import paca
from tests.mcq import make_model, make_tokenizer
from tests.mutations import damaged_json, damaged_json_lines

SETTINGS = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}

RUN_SETTINGS = {
    "strategy": "paca", "method": "paca", "rank": 8, "alpha": 64.0, "trainable_layers": "all", "epochs": 3,
    "learning_rate": 3e-4, "model": "/models/llama", "data_sha256": "00ff", "seed": 0, "impl": "auto", "world_size": 1,
}  # fmt: skip
RESULT = {
    "strategy": "paca", "method": "paca", "trainable_layers": "all", "rank": 8, "alpha": 64.0, "model": "base",
    "model_path": "base", "data": "mmlu", "examples": 160, "steps": 5, "epochs": 1, "batch": 16, "accumulation": 2,
    "length": 512, "learning_rate": 3e-4, "wall_s": 1.5, "training_time": "0:00:01.50", "final_loss": 0.5,
    "device": "cpu", "gpu": None, "precision": "bf16", "impl": "auto", "world_size": 1, "trainable_params": 7168,
    "seed": 0, "versions": {"python": "3.11.7", "triton": None},
}  # fmt: skip
STATE = {
    "best_global_step": None, "best_metric": None, "best_model_checkpoint": None, "epoch": 0.4, "eval_steps": 500,
    "global_step": 2, "is_hyper_param_search": False, "is_local_process_zero": True, "is_world_process_zero": True,
    "log_history": [{"epoch": 0.2, "grad_norm": 1.5, "learning_rate": 3e-6, "loss": 4.5, "step": 1}],
    "logging_steps": 1, "max_steps": 5, "num_input_tokens_seen": 0, "num_train_epochs": 1, "save_steps": 2,
    "stateful_callbacks": {"TrainerControl": {"args": {"should_save": True}, "attributes": {}}},
    "total_flos": 9e9, "train_batch_size": 16, "trial_name": None, "trial_params": None,
}  # fmt: skip
LINE = {"epoch": 0.2, "loss": 4.5, "learning_rate": 3e-6, "grad_norm": None, "examples_per_s": 99.5, "elapsed_s": 0.3}
METRICS = [{"step": step, **LINE} for step in (1, 2, 3)]


class Sound:
    """One of everything, whole; `files` by a name for each that is damaged: where it lies and what it says."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.base, self.lora, self.paca, self.run = (place / name for name in ("base", "lora", "paca", "run"))
        make_model("llama", self.base, layers=1)
        make_tokenizer(self.base)
        model = AutoModelForCausalLM.from_pretrained(self.base)
        get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(str(self.lora))
        make_tokenizer(self.lora)
        make_tokenizer(self.paca)
        save_paca(paca(AutoModelForCausalLM.from_pretrained(self.base), rank=4, alpha=8), self.paca)
        self.bitfit, self.qpaca, tuned = place / "bitfit", place / "qpaca", ["model.layers.0.self_attn.q_proj"]
        save_bitfit(put_bitfit(AutoModelForCausalLM.from_pretrained(self.base), tuned, False), self.bitfit, False)
        save_qpaca(put_qpaca(AutoModelForCausalLM.from_pretrained(self.base), tuned, 4, 8, "cpu"), self.qpaca, False)
        for folder in (self.bitfit, self.qpaca):
            make_tokenizer(folder)
        index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys("abc", "model.safetensors")}
        (self.base / "model.safetensors.index.json").write_text(json.dumps(index))
        self.taken = self.run / "checkpoints" / "checkpoint-2"
        self.taken.mkdir(parents=True)
        (self.run / "settings.json").write_text(json.dumps(RUN_SETTINGS))
        (self.run / "train.json").write_text(json.dumps(RESULT | {"model_path": str(self.base)}))
        (self.run / "metrics.jsonl").write_text("".join(json.dumps(m) + "\n" for m in METRICS))
        (self.taken / "trainer_state.json").write_text(json.dumps(STATE))
        (self.run / "model").symlink_to(self.paca)
        checkpoints.complete(self.taken, 2, 1.5)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Sound:
    return Sound(tmp_path_factory.mktemp("sound"))


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What looks like a Hub id is answered at once."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def result(sound: Sound) -> None:
    """What bench evaluate does with a folder of bench train before it loads a model."""
    assert isinstance(read_result(sound.run)["strategy"], str)
    found(sound.run)


def found(folder: Path) -> None:
    stands_on(str(folder))
    there = find(str(folder))
    assert isinstance(there, Found) and (not there.kind or (there.folder / there.kind).is_file())


def own(sound: Sound) -> None:
    with claim(sound.run, RUN_SETTINGS, fresh=False) as begin:
        begin()


def taken(sound: Sound) -> None:
    there = newest(sound.run / "checkpoints")
    if there is not None:  # else it counts as torn
        assert there.step == 2 and 0 <= there.elapsed_s <= 1e12
        check_state(there)


def metrics(sound: Sound) -> None:
    lines = read_metrics(sound.run / "metrics.jsonl")
    assert sum(m["loss"] for m in lines) is not None and all(m["step"] <= 2**53 for m in lines)


#: What is damaged, and what reads it.
READERS: dict[str, Callable[[Sound], None]] = {
    "run/train.json": result,
    "run/settings.json": own,
    "run/metrics.jsonl": metrics,
    "run/checkpoints/checkpoint-2/complete.json": taken,
    "run/checkpoints/checkpoint-2/trainer_state.json": taken,
    "lora/adapter_config.json": lambda sound: found(sound.lora),
    "paca/paca_config.json": lambda sound: found(sound.paca),
    "bitfit/bitfit_config.json": lambda sound: found(sound.bitfit),
    "qpaca/qpaca_config.json": lambda sound: found(sound.qpaca),
    "base/model.safetensors.index.json": lambda sound: found(sound.base),
    "base/config.json": lambda sound: found(sound.base),
}
LOADED = {
    "lora/adapter_config.json": lambda sound: load_trained_model(str(sound.lora), "cpu"),
    "paca/paca_config.json": lambda sound: load_trained_model(str(sound.paca), "cpu"),
    "bitfit/bitfit_config.json": lambda sound: load_trained_model(str(sound.bitfit), "cpu"),
    "qpaca/qpaca_config.json": lambda sound: load_trained_model(str(sound.qpaca), "cpu"),
    "base/config.json": lambda sound: load_trained_model(str(sound.base), "cpu"),
    "base/tokenizer_config.json": lambda sound: load_trained_model(str(sound.base), "cpu"),
}


@pytest.fixture
def file(request: pytest.FixtureRequest, sound: Sound, tmp_path: Path) -> Iterator[Path]:
    """A file that is put back afterwards."""
    path = sound.place / request.param
    shutil.copy(path, tmp_path / "whole")
    yield path
    shutil.copy(tmp_path / "whole", path)


@pytest.mark.parametrize("file", READERS, indirect=True)
def test_what_is_whole_is_read(file: Path, sound: Sound) -> None:
    READERS[str(file.relative_to(sound.place))](sound)


def hold(path: Path, sound: Sound, read: Callable[[Sound], object], examples: int) -> None:
    text = path.read_text()
    lines = [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else None
    damage = damaged_json_lines(lines) if lines else damaged_json(json.loads(text))

    @settings(max_examples=examples, **SETTINGS)
    @given(damage)
    def each(data: bytes) -> None:
        path.write_bytes(data)
        try:
            read(sound)
        except UserError as e:
            said = str(e)
            assert len(said.splitlines()) == 1 and said == printable(said) and len(said) < 2000, said
            assert str(sound.place) in said or said.startswith("model "), said

    each()


@pytest.mark.parametrize("file", READERS, indirect=True)
def test_some_damage_is_refused_in_a_sentence_or_read(file: Path, sound: Sound) -> None:
    hold(file, sound, READERS[str(file.relative_to(sound.place))], 25)


@pytest.mark.slow
@pytest.mark.parametrize("file", READERS, indirect=True)
def test_any_damage_is_refused_in_a_sentence_or_read(file: Path, sound: Sound) -> None:
    hold(file, sound, READERS[str(file.relative_to(sound.place))], 2000)


@pytest.mark.slow
@pytest.mark.parametrize("file", LOADED, indirect=True)
def test_any_damage_is_refused_in_a_sentence_or_loaded(file: Path, sound: Sound) -> None:
    hold(file, sound, LOADED[str(file.relative_to(sound.place))], 300)


TENSORS = {"bitfit": "bitfit_model.safetensors", "qpaca": "qpaca_model.safetensors"}
Q = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("kind", "changes", "told"),
    [
        ("bitfit", {f"{Q}.bias": torch.zeros(63)}, "has shape (63,), expected (64,)"),
        ("bitfit", {f"{Q}.bias": torch.zeros(64, dtype=torch.int64)}, "has dtype torch.int64, expected floats"),
        ("bitfit", {"model.norm.bias": torch.zeros(64)}, "is in bitfit_model.safetensors alone"),
        ("bitfit", {f"{Q}.bias": None}, "is in bitfit_config.json alone"),
        ("qpaca", {f"{Q}.columns": torch.zeros(64, 5)}, "expected (64, 4)"),
        ("qpaca", {f"{Q}.columns": torch.zeros(64, 4, dtype=torch.float16)}, "is torch.float16"),
        ("qpaca", {f"{Q}.index": torch.tensor([1, 2, 2, 3])}, "does not hold 4 different columns of 64"),
        ("qpaca", {f"{Q}.index": torch.tensor([1, 2, 3, 64])}, "does not hold 4 different columns of 64"),
        ("qpaca", {f"{Q}.index": torch.tensor([-1, 2, 3, 4])}, "does not hold 4 different columns of 64"),
        ("qpaca", {f"{Q}.index": None}, "is missing in qpaca_model.safetensors"),
    ],
)
def test_other_tensors_than_the_config_s_are_refused(
    kind: str, changes: dict[str, torch.Tensor | None], told: str, sound: Sound, tmp_path: Path
) -> None:
    folder = tmp_path / kind
    shutil.copytree(sound.place / kind, folder)
    path = folder / TENSORS[kind]
    values = {name: t for name, t in {**load_file(path), **changes}.items() if t is not None}
    save_file(values, path)
    with pytest.raises(UserError, match="what was trained cannot be loaded") as error:
        load_trained_model(str(folder), "cpu")
    assert told in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize("kind", TENSORS)
def test_a_torn_file_of_tensors_is_refused(kind: str, sound: Sound, tmp_path: Path) -> None:
    folder = tmp_path / kind
    shutil.copytree(sound.place / kind, folder)
    path = folder / TENSORS[kind]
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="what was trained cannot be loaded"):
        load_trained_model(str(folder), "cpu")
    path.unlink()
    with pytest.raises(UserError, match="what was trained cannot be loaded"):
        load_trained_model(str(folder), "cpu")
