"""shapes.py's closed forms against transformers' own modules, on the meta device."""

from pathlib import Path

import pytest
import torch

from bench.case.shapes import Projection, model_shape
from bench.methods.adapt import decoder_blocks
from bench.models.config import make_config, make_model
from bench.models.inspect import count, projections
from tests.models.tiny import GPT2, LLAMA, write_config

# Of the checkpoints on the Hub; of Gemma 3 4B the language model, without 416,866,032 of SigLIP and 2,950,272 between.
PUBLISHED = {
    "gpt2-medium": 354_823_168, "gpt2-xl": 1_557_611_200, "tinyllama": 1_100_048_384, "llama2-7b": 6_738_415_616,
    "llama-3.2-1b": 1_235_814_400, "llama-3.2-3b": 3_212_749_824, "llama-3.1-8b": 8_030_261_248,
    "mistral-7b": 7_241_732_096, "qwen3-0.6b": 596_049_920, "qwen3-1.7b": 1_720_574_976, "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360, "gemma-3-1b": 999_885_952,
    "gemma-3-4b": 4_300_079_472 - 416_866_032 - 2_950_272, "phi-4-mini": 3_836_021_760,
}  # fmt: skip


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
    assert count(model) == model_shape(name).num_params == PUBLISHED[name]
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


TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}  # within the small vocabulary


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(GPT2, id="gpt2"),
        pytest.param({**GPT2, "n_inner": 56, "tie_word_embeddings": False}, id="gpt2-untied"),
        pytest.param(LLAMA, id="llama"),
        pytest.param({**LLAMA, "attention_bias": True, "mlp_bias": True, "head_dim": 16}, id="llama-bias"),
        pytest.param({**LLAMA, "tie_word_embeddings": True, "rope_theta": 5e5, "pad_token_id": 0}, id="llama-tied"),
        pytest.param({**LLAMA, "model_type": "mistral"}, id="mistral"),
        pytest.param({**LLAMA, "model_type": "mistral", "head_dim": 12}, id="mistral-wide"),
        pytest.param({**LLAMA, "model_type": "qwen3"}, id="qwen3"),
        pytest.param({**LLAMA, "model_type": "qwen3", "head_dim": 16, "attention_bias": True}, id="qwen3-bias"),
        pytest.param({**LLAMA, "model_type": "gemma3_text"}, id="gemma3"),
        pytest.param(
            {**LLAMA, "model_type": "gemma3_text", "tie_word_embeddings": False, "head_dim": 8}, id="gemma3-head"
        ),
        pytest.param({**LLAMA, "model_type": "phi3", **TOKENS}, id="phi3"),
        pytest.param({**LLAMA, "model_type": "phi3", "attention_dropout": 0.2, **TOKENS}, id="phi3-dropout"),
    ],
)
def test_configs(fields: dict, tmp_path: Path) -> None:
    _agrees(write_config(tmp_path, fields))
