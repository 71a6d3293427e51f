"""Architectures without a closed form: their shape is read off the model, and they build like the others."""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.case import shapes
from bench.errors import UserError
from bench.methods.registry import trainable_params
from bench.models.build import build
from bench.models.inspect import describe, main
from tests.models.tiny import LLAMA, make_case, write_config

MISTRAL = {**LLAMA, "model_type": "mistral", "sliding_window": 32}
QWEN2 = {**LLAMA, "model_type": "qwen2"}
NEOX = {**LLAMA, "model_type": "gpt_neox"}
OPT = {**LLAMA, "model_type": "opt", "ffn_dim": 48, "word_embed_proj_dim": 32, "pad_token_id": 1}
OTHERS = [pytest.param(f, id=str(f["model_type"])) for f in (MISTRAL, QWEN2, NEOX, OPT)]


@pytest.fixture(autouse=True)
def no_bound_stays() -> Iterator[None]:
    """The command bounds the memory of its process, which is the tests' own here: no browser would start in it."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """model_shape asks this process instead of a new one, which costs seconds of imports."""

    def ask(name: str, path: Path | None) -> shapes.ModelShape:
        assert path is not None
        found = describe(json.loads(path.read_text()))
        projections = tuple(shapes.Projection(**p) for p in found.pop("projections"))
        return shapes.ModelShape(name=name, projections=projections, **found)

    monkeypatch.setattr(shapes, "ask_transformers", ask)


@pytest.mark.parametrize("level", ["linear", "block", "model"])
@pytest.mark.parametrize("fields", OTHERS)
def test_builds(fields: dict[str, Any], level: str, tmp_path: Path, in_process: None) -> None:
    path = write_config(tmp_path, fields)
    layer = shapes.model_shape(path).projections[-1].name if level == "linear" else None
    for method in ("full", "lora", "paca"):
        for upper in ("all", "upper-1/2") if level == "model" else ("all",):
            case = make_case(path, method, level, layer=layer, trainable_layers=upper)
            work = build(case, "cpu")
            out = work.forward()
            assert out.isfinite().all()
            work.backward(out)
            work.check_leaves()
            assert work.trainable_params == trainable_params(case)


def test_dropout_of_a_plain_attribute_counts() -> None:
    assert describe(OPT)["dropout"] == 0.1
    assert describe(QWEN2)["dropout"] == 0.0


def test_a_sliding_window_is_not_left(tmp_path: Path, in_process: None) -> None:
    with pytest.raises(ValueError, match="seq: 48 is above the model's sliding window of 32"):
        build(make_case(write_config(tmp_path, MISTRAL), seq=48), "cpu")


@pytest.mark.slow
def test_command(tmp_path: Path) -> None:
    shape = shapes.model_shape(write_config(tmp_path, QWEN2))
    assert [p.name for p in shape.projections] == [
        *(f"self_attn.{x}_proj" for x in "qkvo"),
        *(f"mlp.{x}_proj" for x in ("gate", "up", "down")),
    ]
    assert shape.projections[0] == shapes.Projection("self_attn.q_proj", 32, 32, bias=True)
    assert (shape.num_layers, shape.max_positions, shape.config["model_type"]) == (4, 64, "qwen2")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"model_type": "nonesuch"}, "transformers knows no model_type 'nonesuch'"),
        ({"model_type": "t5"}, "no causal language model of model_type 't5'"),
        ({"model_type": "bloom"}, "BloomForCausalLM does not let its attention be replaced"),
        ({"model_type": "mistral", "hidden_size": "wide"}, "hidden_size"),
    ],
)
def test_errors_are_one_line(
    fields: dict[str, Any], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(Path(write_config(tmp_path, fields))) == 1
    out, err = capsys.readouterr()
    assert sentence in err.strip().splitlines()[-1]
    assert not out


@pytest.mark.slow
def test_an_error_reaches_the_person(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot build this model.*nonesuch"):
        shapes.model_shape(write_config(tmp_path, {"model_type": "nonesuch"}))


def test_importing_the_packages_needs_no_torch() -> None:
    code = "import sys, bench.models, bench.methods; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(shapes.__file__).parents[2]).returncode == 0
