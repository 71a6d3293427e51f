"""shapes.py's closed forms against transformers' own modules, on the meta device."""

from pathlib import Path

import pytest
import torch

from bench.case.shapes import Projection, model_shape
from bench.methods.adapt import decoder_blocks
from bench.models.config import make_config, make_model
from bench.models.inspect import count, projections
from tests.models.tiny import GPT2, LLAMA, write_config

PUBLISHED = {"gpt2-medium": 354.8, "gpt2-xl": 1557.6, "tinyllama": 1100.0, "llama2-7b": 6738.4}  # millions


def _agrees(name: str) -> torch.nn.Module:
    shape = model_shape(name)
    model = make_model(make_config(shape.config), torch.device("meta"), torch.bfloat16)
    blocks = decoder_blocks(model)[1]
    assert [Projection(**p) for p in projections(blocks[0])] == list(shape.projections)
    assert (len(blocks), count(blocks[0]), count(model)) == (shape.num_layers, shape.block_params, shape.num_params)
    assert model.config.max_position_embeddings == shape.max_positions
    assert model.config.hidden_size == shape.hidden_size
    return model


@pytest.mark.parametrize("name", PUBLISHED)
def test_named_models(name: str) -> None:
    model = _agrees(name)
    assert round(count(model) / 1e6, 1) == PUBLISHED[name]
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert all(p.is_meta for p in model.parameters())


def test_siblings_read_the_same_x(tmp_path: Path) -> None:
    """Seen in a forward of transformers' own model; GPT-2's are one product already."""
    shape = model_shape(write_config(tmp_path, LLAMA))
    model = make_model(make_config(shape.config), torch.device("cpu"), torch.float32)
    read: dict[str, torch.Tensor] = {}
    block = decoder_blocks(model)[1][0]
    for p in shape.projections:
        block.get_submodule(p.name).register_forward_hook(lambda _, args, __, name=p.name: read.update({name: args[0]}))
    model(torch.arange(5)[None])
    alike: dict[int, list[str]] = {}
    for name, x in read.items():
        alike.setdefault(id(x), []).append(name)
    found = [[p.name for p in group] for group in shape.groups.values()]
    assert sorted(found) == sorted(names for names in alike.values() if len(names) > 1)
    assert [p.name for p in shape.layer("self_attn.qkv")] == [f"self_attn.{x}_proj" for x in "qkv"]
    assert shape.layer("self_attn.o_proj") == (shape.projections[3],)
    assert shape.layer("qkv") == ()
    assert model_shape("gpt2-xl").groups == {}


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(GPT2, id="gpt2"),
        pytest.param({**GPT2, "n_inner": 56, "tie_word_embeddings": False}, id="gpt2-untied"),
        pytest.param(LLAMA, id="llama"),
        pytest.param({**LLAMA, "attention_bias": True, "mlp_bias": True, "head_dim": 16}, id="llama-bias"),
        pytest.param({**LLAMA, "tie_word_embeddings": True, "rope_theta": 5e5, "pad_token_id": 0}, id="llama-tied"),
    ],
)
def test_configs(fields: dict, tmp_path: Path) -> None:
    _agrees(write_config(tmp_path, fields))
