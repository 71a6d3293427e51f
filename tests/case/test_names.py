"""What a model is called: short, and another name for another model."""

from pathlib import Path

import pytest

from bench.case.names import plain_name, short_name, tell_apart
from bench.case.shapes import known_name, named_models
from bench.sweeps.hub import resolved
from tests.models.tiny import LLAMA, make_case, write_config


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("qwen3-8b", "qwen3-8b"),
        ("Qwen/Qwen3-14B", "Qwen3-14B"),
        ("checkpoints/mine/config.json", "mine"),
        ("checkpoints/mine", "mine"),
        ("/data/models/tiny.json", "tiny"),
        ("../mine-0.5/config.json", "mine-0.5"),
    ],
)
def test_a_name_is_the_last_part_that_says_something(model: str, name: str) -> None:
    case = make_case(model, level="block")
    assert short_name(model) == name == case.subject
    assert case.describe().startswith(f"{name} full/eager") and case.model == model


def test_models_that_would_be_called_alike_are_told_apart() -> None:
    models = ["told/a/tiny/config.json", "told/b/tiny", "told-apart/tiny", "told/only-one/config.json"]
    tell_apart([*models, None])
    assert [short_name(m) for m in models] == ["a/tiny", "b/tiny", "told-apart/tiny", "only-one"]
    assert short_name("never-told/tiny") == "tiny"


@pytest.mark.parametrize(("name", "folder"), [("qwen3-0.6b", "qwen3-0.6b"), ("a/b c", "a-b-c"), ("..", "model")])
def test_a_name_as_a_folder(name: str, folder: str) -> None:
    assert plain_name(name) == folder


def test_every_word_for_a_known_model_means_its_one_name(tmp_path: Path) -> None:
    for word in ("Qwen/Qwen3-8B", "qwen3-8b", "QWEN3-8B", "qwen/qwen3-8b"):
        assert known_name(word) == resolved(word, tmp_path) == "qwen3-8b"
    assert known_name("qwen3-8") is None and known_name("Qwen3-8B/config.json") is None
    assert all("hub" not in fields for fields in named_models().values())


def test_a_path_is_seen_from_the_folder_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    Path(write_config(tmp_path / "mine", LLAMA)).rename(tmp_path / "mine" / "config.json")
    assert resolved("mine", tmp_path) == str(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert resolved("./mine/config.json", Path()) == "mine/config.json"
    monkeypatch.chdir(tmp_path / "mine")
    assert resolved(".", Path()) == str(tmp_path / "mine" / "config.json"), "and so it has a name"
