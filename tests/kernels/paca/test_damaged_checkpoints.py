"""load_paca on files of any damage: refused in one line with the model as it was, or loaded."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from kernels.paca import load_paca, paca, save_paca
from tests.mutations import FUZZ, damaged, damaged_json

CONFIG, TENSORS = "paca_config.json", "paca_model.safetensors"
COLUMNS, INDEX = "model.layers.0.mlp.down_proj.columns", "model.layers.0.mlp.down_proj.index"


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
        (torch.tensor([3, 1, 2, 0]), "is not in ascending order"),
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


def state(model: nn.Module) -> dict[str, Any]:
    """All that load_paca could change: classes of modules, parameters, their flags, and bytes."""
    found: dict[str, Any] = {f"{name} is": type(module) for name, module in model.named_modules()}
    found |= {f"{name} trains": (id(p), p.requires_grad) for name, p in model.named_parameters()}
    found |= {name: t.numpy().tobytes() for name, t in model.state_dict().items()}
    return found | {"attributes": sorted(vars(model))}


def refused(folder: Path, words: str = "") -> None:
    model = plain()
    before = state(model)
    with pytest.raises((ValueError, TypeError, OSError), match=words) as e:
        load_paca(model, folder)
    assert str(e.value).isprintable(), repr(e.value)
    assert state(model) == before


@pytest.fixture(scope="module")
def described(saved: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((saved / CONFIG).read_text())
    return found


LAYER = "model.layers.0.mlp.down_proj"
ALIAS = "base_model.layers.0.mlp.down_proj"
FORGED: dict[str, tuple[dict[str, Any], str, str]] = {
    # The key that a stranger adds names to, the names, the tensors beside them, what is said.
    "alias": ({ALIAS: {"in": 16, "out": 16}}, "shapes", f"{ALIAS} is no layer of"),
    "root": ({"": {"in": 16, "out": 16}}, "shapes", "cannot be adapted"),
    "line": ({"a\nb": {"in": 16, "out": 16}}, "shapes", r"'a\\nb' is no name"),
    "escape": ({"\x1b[31m": [16]}, "parameters", "is no name"),
    "adapted": ({f"{LAYER}.weight": [16, 16]}, "parameters", rf"parameters names {LAYER}\.weight"),
    "buffer": ({"model.rotary_emb.inv_freq": [4]}, "statistics", "inv_freq was saved, but LlamaForCausalLM has none"),
}


@pytest.mark.parametrize("case", FORGED)
def test_names_that_save_paca_never_writes_are_refused(
    saved: Path, described: dict[str, Any], tmp_path: Path, case: str
) -> None:
    more, key, said = FORGED[case]
    tensors = {}
    for name, shape in more.items():
        if key == "shapes":
            whole = load_file(saved / TENSORS)
            tensors |= {f"{name}.{part}": whole[f"{LAYER}.{part}"] for part in ("columns", "index")}
        else:
            tensors[name] = torch.zeros(shape)
    text = json.dumps(described | {key: described[key] | more}).encode()
    refused(rewritten(saved, tmp_path / "x", text, **tensors), said)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("alpha", 10**400), ("alpha", float("inf")), ("alpha", float("nan")), ("alpha", True), ("rank", True),
        ("rank", 10**30), ("seed", 1.0), ("shapes", {}), ("num_labels", 2**31), ("adapter_dtype", "bool"),
        ("adapter_dtype", "Tensor"), ("frozen", ["\x1b[31m"]), ("format", True), ("format", 1e400),
    ],
)  # fmt: skip
def test_a_value_that_save_paca_never_writes_is_refused(
    saved: Path, described: dict[str, Any], tmp_path: Path, key: str, value: Any
) -> None:
    refused(rewritten(saved, tmp_path / "x", json.dumps(described | {key: value}).encode()), key)


@pytest.mark.parametrize(("alpha", "seed"), [(1e10, 2**70), (10**12, -(2**70)), (0.5, 0)])
def test_whatever_paca_takes_is_loaded_again(tmp_path: Path, alpha: float, seed: int) -> None:
    model = paca(plain(), 4, alpha, seed=seed)
    save_paca(model, tmp_path)
    again = load_paca(plain(), tmp_path)
    assert again.paca_config == model.paca_config
    assert all(torch.equal(t, again.state_dict()[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("architecture", ["LlamaPreTrainedModel", "models", "__class__", "a\\n\ud83d"])
def test_an_architecture_that_is_no_model_is_passed_by(
    saved: Path, described: dict[str, Any], tmp_path: Path, architecture: str
) -> None:
    plain().save_pretrained(tmp_path / "base")
    text = json.dumps(described | {"architecture": architecture}).encode()
    assert isinstance(load_paca(str(tmp_path / "base"), rewritten(saved, tmp_path / "x", text)), LlamaForCausalLM)


def test_names_and_words_of_the_tensors_file_stay_in_one_line(saved: Path, tmp_path: Path) -> None:
    folder = rewritten(saved, tmp_path / "x", **{"a\n\x1b[31m": torch.ones(1)})
    refused(folder, r"a\\n\\x1b\[31m is not expected")
    header, body = parts(saved)
    header[COLUMNS]["dtype"] = "F\n32"
    (folder / TENSORS).write_bytes(joined(json.dumps(header).encode(), body))
    refused(folder, r"paca_model\.safetensors cannot be read: .*F\\n32")


@pytest.mark.parametrize("name", [CONFIG, TENSORS])
@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_plain_file_is_refused_at_once(saved: Path, tmp_path: Path, name: str, make: Any) -> None:
    path = rewritten(saved, tmp_path / "x") / name
    path.unlink()
    make(path)
    refused(path.parent, rf"{name} is no plain file")


def test_a_head_of_8_bits_is_refused(saved: Path, tmp_path: Path) -> None:
    head = load_file(saved / TENSORS)["lm_head.weight"].to(torch.float8_e4m3fn)
    refused(rewritten(saved, tmp_path / "x", **{"lm_head.weight": head}), "has dtype torch.float8_e4m3fn, expected")


def parts(saved: Path) -> tuple[dict[str, Any], bytes]:
    """The header and the tensors of a safetensors file: 8 bytes of length, JSON, bytes."""
    data = (saved / TENSORS).read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def joined(header: bytes, body: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + body


def hold(saved: Path, folder: Path, data: st.DataObject) -> None:
    """Refused in one line, with nothing changed; or loaded."""
    what = data.draw(st.sampled_from(("config", "bytes", "header")))
    if what == "config":
        rewritten(saved, folder, data.draw(damaged_json(json.loads((saved / CONFIG).read_text()))))
    else:
        rewritten(saved, folder)
        header, body = parts(saved)
        with_header = what == "header"
        written = joined(data.draw(damaged_json(header)), body) if with_header else (saved / TENSORS).read_bytes()
        (folder / TENSORS).write_bytes(written if with_header else data.draw(damaged(written)))
    model = plain()
    before = state(model)
    try:
        load_paca(model, folder)
    except (ValueError, TypeError, OSError) as e:
        assert str(e) and str(e).isprintable(), repr(e)
        assert state(model) == before


@pytest.mark.slow
@settings(max_examples=6000, **FUZZ)  # a third each: the configuration, bytes of the tensors' file, its header
@given(data=st.data())
def test_any_damage_is_refused_in_a_line_or_loaded(saved: Path, tmp_path: Path, data: st.DataObject) -> None:
    hold(saved, tmp_path / "x", data)


@settings(max_examples=30, **FUZZ)
@given(data=st.data())
def test_some_damage_is_refused_in_a_line_or_loaded(saved: Path, tmp_path: Path, data: st.DataObject) -> None:
    hold(saved, tmp_path / "x", data)
