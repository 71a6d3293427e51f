"""A config.json that a stranger or a disk has damaged: refused with file and field, or a model that can be built."""

import json
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from bench.case.shapes import ModelShape, model_shape
from bench.errors import UserError
from tests.conftest import Cli
from tests.models.tiny import GPT2, LLAMA
from tests.mutations import damaged_json, written

QWEN = {**LLAMA, "model_type": "qwen2"}  # whose shape only transformers knows


def refusal(config: Any, folder: Path) -> str:
    path = folder / "config.json"
    path.write_bytes(config if isinstance(config, bytes) else written(config))
    with pytest.raises(UserError) as error:
        model_shape.__wrapped__(str(path))
    return str(error.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (GPT2 | {"n_layer": "12"}, "n_layer is '12'. It should be a whole number from 1 to 10000."),
        (GPT2 | {"n_layer": None}, "n_layer is None. It should be a whole number from 1 to 10000."),
        (GPT2 | {"n_layer": 10**9}, "n_layer is 1000000000. It"),
        (GPT2 | {"num_hidden_layers": -3}, "num_hidden_layers is -3. It"),
        (GPT2 | {"n_embd": 1e308}, "n_embd is 1e+308. It should be a whole number from 1 to 1048576."),
        (GPT2 | {"n_embd": 30}, "n_embd is 30. It should be a multiple of n_head, which is 4."),
        (GPT2 | {"n_inner": 0}, "n_inner is 0. It"),
        (GPT2 | {"n_positions": True}, "n_positions is True. It"),
        (GPT2 | {"resid_pdrop": float("nan")}, "resid_pdrop is nan. It should be a number from 0 to 1."),
        (GPT2 | {"layer_norm_epsilon": float("inf")}, "layer_norm_epsilon is inf. It should be a finite number"),
        (LLAMA | {"vocab_size": -7}, "vocab_size is -7. It should be a whole number from 1 to 134217728."),
        (LLAMA | {"num_attention_heads": 4.0}, "num_attention_heads is 4.0. It"),
        (
            LLAMA | {"num_key_value_heads": 3},
            "num_attention_heads is 4. It should be a multiple of num_key_value_heads",
        ),
        (LLAMA | {"tie_word_embeddings": "no"}, "tie_word_embeddings is 'no'. It should be true or false."),
        (LLAMA | {"rope_scaling": {"factor": [1.0, float("nan")]}}, "rope_scaling.factor.1 is nan. It"),
        (LLAMA | {"bos_token_id": 10**400}, "bos_token_id is 1000"),
        (QWEN | {"hidden_size": 2**21}, "hidden_size is 2097152. It"),
        (QWEN | {"text_config": {"num_experts": 1e9}}, "text_config.num_experts is 1000000000.0. It"),
        (QWEN | {"text_config": {"ffn_dim": [64, -1]}}, "text_config.ffn_dim.1 is -1. It"),
        (QWEN | {"attn_implementation": "kernels-community/x"}, "attn_implementation is 'kernels-community/x'. It"),
        ({}, "no 'model_type'"),
        ([], "no 'model_type'"),
        (b"[" * 100_000, "nested too deeply"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"model_type": "gpt2", "n_layer": ' + b"9" * 5000 + b"}", "not valid JSON"),
    ],
)
def test_a_field_that_cannot_be_is_named(config: Any, told: str, tmp_path: Path) -> None:
    assert refusal(config, tmp_path).startswith(told)


def test_what_is_no_plain_file_is_told(cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    sweep = tmp_path / "s.yaml"
    for model in (tmp_path, tmp_path / "pipe", tmp_path / "none", "/dev/zero", "a\\0b"):
        sweep.write_text(f'description: x\naxes: {{level: model, model: "{model}", batch: 1, seq: 4}}\n' + METHODS)
        done = cli("list", sweep)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1) and "config.json" in done.stderr


METHODS = "methods: [{method: full}]\n"


def read_or_refuse(data: bytes, folder: Path) -> None:
    """One line of a UserError; or a shape that is made of numbers a model can have, which can be sent to a worker."""
    path = folder / "config.json"
    path.write_bytes(data)
    try:
        shape = model_shape.__wrapped__(str(path))
    except UserError as e:
        assert str(path) in str(e) and len(str(e).splitlines()) == 1 and len(str(e)) < 1000
    else:
        assert 1 <= shape.num_layers <= 10_000 and 1 <= shape.hidden_size <= 2**20 and shape.num_params > 0
        assert all(type(getattr(shape, f.name)) is f.type for f in fields(ModelShape) if f.type in (int, str))
        assert 0 <= shape.dropout <= 1
        json.dumps(dict(shape.config), allow_nan=False)


def fuzz(examples: int, config: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.case.shapes.ask_transformers", lambda name, path: refuse(path))
    more = {"resid_pdrop": 0.1, "n_inner": None, "tie_word_embeddings": True, "rope": {"theta": 1e4, "types": ["a"]}}
    check = settings(max_examples=examples, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    check(given(damaged_json(config | more))(lambda data: read_or_refuse(data, folder)))()


def refuse(path: Path) -> None:
    raise UserError(f"{path}: asked of transformers")


@pytest.mark.parametrize("config", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_damaged_configs(config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz(50, config, tmp_path, monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("config", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_many_damaged_configs(config: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fuzz(2000, config, tmp_path, monkeypatch)
