"""load_paca on files of any damage: refused in one line with the model as it was, or loaded."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from kernels.paca import load_paca, paca, save_paca
from tests.mutations import damaged, damaged_json

CONFIG, TENSORS = "paca_config.json", "paca_model.safetensors"
COLUMNS, INDEX = "model.layers.0.mlp.down_proj.columns", "model.layers.0.mlp.down_proj.index"
SETTINGS = {"deadline": None, "database": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


def plain() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=32, max_position_embeddings=16, **sizes))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    save_paca(paca(plain(), 4, 8.0, modules_to_save=["lm_head"]), folder)
    return folder


def rewritten(saved: Path, folder: Path, config: bytes | None = None, **tensors: torch.Tensor) -> Path:
    """A copy of the save with other tensors, and another configuration in both files."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(saved, folder)
    with safe_open(str(saved / TENSORS), "pt") as file:
        meta = file.metadata()
    if config is not None:
        (folder / CONFIG).write_bytes(config)
        meta["paca_config"] = config.decode(errors="replace")
    save_file(load_file(saved / TENSORS) | tensors, folder / TENSORS, meta)
    return folder


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.complex64, torch.float16, torch.float64])
def test_columns_of_another_dtype_are_refused_like_another_shape(saved: Path, tmp_path: Path, dtype: Any) -> None:
    columns = load_file(saved / TENSORS)[COLUMNS].to(dtype)
    with pytest.raises(ValueError, match=rf"{COLUMNS} has dtype {dtype}, expected torch\.float32"):
        load_paca(plain(), rewritten(saved, tmp_path / "x", **{COLUMNS: columns}))


@pytest.mark.parametrize(
    ("index", "said"),
    [
        (torch.tensor([0.0, 1.0, 2.0, 3.0]), "has dtype torch.float32, expected torch.int64"),
        (torch.tensor([0, 1, 2, 3], dtype=torch.uint8), "has dtype torch.uint8"),
        (torch.tensor([0, 1, 2]), "has shape"), (torch.tensor([-1, 1, 2, 3]), "index"),
        (torch.tensor([0, 1, 2, 2]), "index"), (torch.tensor([0, 1, 2, 16]), "index"),
    ],
)  # fmt: skip
def test_an_index_that_is_none_is_refused(saved: Path, tmp_path: Path, index: torch.Tensor, said: str) -> None:
    model = plain()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with pytest.raises(ValueError, match=said):
        load_paca(model, rewritten(saved, tmp_path / "x", **{INDEX: index}))
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_a_head_of_integers_is_refused_and_one_of_another_precision_is_not(saved: Path, tmp_path: Path) -> None:
    head = load_file(saved / TENSORS)["lm_head.weight"]
    with pytest.raises(ValueError, match=r"lm_head\.weight has dtype torch\.int64, expected torch\.float32"):
        load_paca(plain(), rewritten(saved, tmp_path / "x", **{"lm_head.weight": head.long()}))
    model = load_paca(plain(), rewritten(saved, tmp_path / "x", **{"lm_head.weight": head.double()}))
    assert torch.equal(model.lm_head.weight, head)


def test_a_model_that_was_cast_after_paca_is_saved_as_it_is(tmp_path: Path) -> None:
    model = paca(plain(), 4, 8.0).half()
    save_paca(model, tmp_path / "x")
    assert json.loads((tmp_path / "x" / CONFIG).read_text())["adapter_dtype"] == "float16"
    again = load_paca(plain().half(), tmp_path / "x")
    first, second = (dict(m.named_parameters())[COLUMNS] for m in (model, again))
    assert second.dtype == torch.float16 and torch.equal(first, second)


def hold(saved: Path, folder: Path, data: st.DataObject) -> None:
    """Refused in one line; or loaded."""
    if data.draw(st.booleans()):
        rewritten(saved, folder, data.draw(damaged_json(json.loads((saved / CONFIG).read_text()))))
    else:
        rewritten(saved, folder)
        (folder / TENSORS).write_bytes(data.draw(damaged((saved / TENSORS).read_bytes())))
    try:
        load_paca(plain(), folder)
    except (ValueError, TypeError, OSError) as e:
        assert "\n" not in str(e) and str(e), repr(e)


@pytest.mark.slow
@settings(max_examples=4000, **SETTINGS)  # half of them the configuration, half the tensors
@given(data=st.data())
def test_any_damage_is_refused_in_a_line_or_loaded(saved: Path, tmp_path: Path, data: st.DataObject) -> None:
    hold(saved, tmp_path / "x", data)


@settings(max_examples=30, **SETTINGS)
@given(data=st.data())
def test_some_damage_is_refused_in_a_line_or_loaded(saved: Path, tmp_path: Path, data: st.DataObject) -> None:
    hold(saved, tmp_path / "x", data)
