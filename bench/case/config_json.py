"""A config.json, which anybody may have written: sizes that a model can have, checked before they are computed with."""

import math
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from bench.errors import UserError, short
from bench.reading import read_json

# The most that a size may be, by the names that transformers' architectures give it. No model comes near.
_MOST = {
    10_000: "n_layer n_layers num_layers num_hidden_layers encoder_layers decoder_layers",
    2**16: (
        "n_head n_heads num_heads num_attention_heads num_key_value_heads n_head_kv num_kv_heads num_experts"
        " encoder_attention_heads decoder_attention_heads num_local_experts n_routed_experts"
    ),
    2**20: (
        "n_embd n_embed n_inner d_model d_ff d_kv dim hidden_size intermediate_size moe_intermediate_size head_dim"
        " embedding_size ffn_dim ffn_hidden_size word_embed_proj_dim encoder_ffn_dim decoder_ffn_dim"
    ),
    2**27: "vocab_size n_positions n_ctx max_position_embeddings max_seq_len max_sequence_length",
}
_SIZES = {name: most for most, names in _MOST.items() for name in names.split()}
_FLAGS = {"tie_word_embeddings", "attention_bias", "mlp_bias", "use_cache", "scale_attn_weights"}
_SHARES = {
    "resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout", "attention_dropout", "activation_dropout", "hidden_dropout",
    "hidden_dropout_prob", "attention_probs_dropout_prob",
}  # fmt: skip


def read_config(path: Path) -> dict[str, Any]:
    """The fields of a config.json. Raises UserError with the field, what was found and what would be valid.

    Checked are the model_type, and at any depth sizes, dropouts and flags by their names, and that every number is one.
    What only transformers understands stays as it is.
    """
    found = read_json(path)
    if not isinstance(found, dict) or not isinstance(found.get("model_type"), str):
        raise UserError(f"{path}: no 'model_type'; valid is a Hugging Face config.json, as save_pretrained writes it")
    for where, key, value in _fields(found):
        if valid := _valid(key, value):
            raise UserError(f"{path}: {where} is {short(value)}. It should be {valid}.")
    return found


def check_sizes(sizes: dict[str, Any], where: str, needed: Container[str], divided: dict[str, str]) -> None:
    """Raises UserError where a size is a list, is null though the model needs it, or cannot be divided.

    divided: by a size's name, the name of the size that must divide it.
    """
    for key in _SIZES.keys() & sizes.keys():
        if isinstance(sizes[key], list) or (sizes[key] is None and key in needed):
            raise UserError(f"{where}: {key} is {short(sizes[key])}. It should be {_valid(key, '')}.")
    for key, by in divided.items():
        if sizes[key] % sizes[by]:
            raise UserError(f"{where}: {key} is {sizes[key]}. It should be a multiple of {by}, which is {sizes[by]}.")


def _fields(config: dict[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """The place, the key and the value of everything that stands under a key, items of lists one by one."""
    rest: list[tuple[str, str, Any]] = [(key, key, value) for key, value in reversed(config.items())]
    while rest:
        where, key, value = rest.pop()
        if isinstance(value, dict):
            rest += [(f"{where}.{k}", k, v) for k, v in reversed(value.items())]
        elif isinstance(value, list):
            rest += [(f"{where}.{i}", f"{key}[]", v) for i, v in reversed(list(enumerate(value)))]
        if not isinstance(value, dict | list) or key in _FLAGS | _SHARES or (key in _SIZES and isinstance(value, dict)):
            yield where, key, value


def _valid(key: str, value: Any) -> str | None:
    """What a field should be instead; None where it is that already."""
    name = key.removesuffix("[]")  # some architectures have a size for each layer
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name in _SIZES and value is not None:
        least, most = int(name == key), _SIZES[name]
        fine = isinstance(value, int) and number and least <= value <= most
        return None if fine else f"a whole number from {least} to {most}"
    if key in _FLAGS:
        return None if isinstance(value, bool) else "true or false"
    if key in _SHARES and value is not None:
        return None if number and 0 <= value <= 1 else "a number from 0 to 1"
    if number and not (abs(value) < 2**63 if isinstance(value, int) else math.isfinite(value)):
        return "a finite number, and below 2**63 where it is a whole one"
    if name.endswith("_implementation") and isinstance(value, str) and "/" in value:
        return "the name of an implementation in transformers: code of the Hub is not run here"
    return None
