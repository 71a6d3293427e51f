"""Tiny configurations: a default one of transformers, with its sizes cut by the names that its fields have.

Widths become 64 with 4 heads of 16, so that what divided before divides still; layers become 2, or one of each kind.
Where that does not fit together, widths stay as they are and only the number of layers is cut.
"""

import re
from collections.abc import Callable
from typing import Any

from .overrides import MADE, OVERRIDES

HIDDEN, HEADS, HEAD_DIM, INNER, VOCAB = 64, 4, 16, 96, 128
FIRST_SPECIAL = 100  # special tokens get ids from here on, ordinary ones lie below
LEVELS = ("small", "short", "whole")  # every size is cut; layers and vocabulary only; nothing but dropout

_LAYERS = re.compile(
    r"^((\w+_)?(num_hidden_layers|num_layers|n_layers?|num_blocks|encoder_layers|decoder_layers|num_encoder_layers|"
    r"num_decoder_layers|attention_num_layers)|depth|layers|l_layers|x_layers|r_layers|num_hidden_groups|"
    r"resampler_depth|num_attention_layers|num_(spatial|temporal|auxiliary|sparse_encoder|sparse_decoder)_layers)$"
)
_SPECIAL = re.compile(r"(token_id|token_index|(?<!per)_token|token_ids)$")
_DROPOUT = re.compile(r"(drop|jitter|mask_time_prob|mask_feature_prob)")
_STAGE_WIDTHS = ("hidden_sizes", "embed_dims", "embed_dim", "encoder_hidden_sizes")
_LISTS = {"conv_dim": 32, "decoder_in_channels": HIDDEN, "num_heads": 2, "num_attention_heads": 2}
_STAGES = ("stage_names", "out_features", "out_indices", "_out_features", "_out_indices")


def _most(limit: int) -> Callable[[int], int]:
    return lambda value: min(value, limit)


# The first rule that matches a field's name applies.
_COUNTS: tuple[tuple[str, Callable[[int], int]], ...] = (
    (r"(^|_)vocab_size(_per_layer_input)?$", _most(VOCAB)),
    (r"(num_experts|num_local_experts|n_routed_experts|num_routed_experts)$", _most(4)),
    (r"(experts_per_tok|experts_per_token|moe_k|moe_topk|moe_top_k|top_k_experts|num_selected_experts)$", _most(2)),
    (r"^(n_group|num_expert_group)$", _most(2)),
    (r"^topk_group$", _most(1)),
    (r"^(first_k_dense_replace|max_window_layers|num_dense_layers|moe_layer_start_index)$", _most(1)),
)
_SIZES: tuple[tuple[str, Callable[[int], int]], ...] = (
    (r"^mamba_(n_heads|num_heads)$", _most(8)),  # with heads of 16 twice the hidden size
    (r"^mamba_(d_head|head_dim)$", _most(HEAD_DIM)),
    (r"^mamba_d_ssm$", _most(2 * HIDDEN)),
    (r"^(n_groups|mamba_n_groups)$", _most(2)),
    (r"(kv_heads|kv_n_heads|key_value_heads|head_kv|linear_num_key_heads)$", _most(2)),
    (r"(_heads?|^n_heads?)$", _most(HEADS)),
    (r"^qk_(rope|nope)_head_dim$", _most(8)),
    (r"^rotary_dim$", _most(8)),
    (r"(head_dim|d_kv|d_head|attention_head_size|kv_channels|dim_head)$", _most(HEAD_DIM)),
    (r"_lora_rank$|^lora_rank_\w+|_low_rank_dim$", _most(16)),
    (r"^(moe|shared|share_expert|expert)\w*(intermediate_size|ffn_hidden_size|_dim)$", _most(32)),
    (
        r"(intermediate_size|intermediate_dim|ffn_dim|ffn_hidden_size|d_ff|mlp_dim|d_inner|feedforward_dim|"
        r"dim_feedforward|ffn_embed_dim|feed_forward_size)$",
        _most(INNER),
    ),
    (r"(hidden_size|hidden_dim|d_model|n_embd|embed_dim|emb_dim|embedding_size|proj_dim|projection_dim|output_dim)$",
     _most(HIDDEN)),
    (r"(max_position_embeddings|n_positions|n_ctx|max_seq_len|max_sequence_length|max_seq_length)$", _most(256)),
    (r"^max_source_positions$", _most(50)),
    (r"^(sliding_window|(\w+_)?chunk_size|index_topk)$", _most(8)),
    (r"(state_size|d_state)$", _most(16)),
    (r"^num_queries$", _most(10)),
    (r"^num_conv_pos_embeddings$", _most(16)),
    (r"^num_conv_pos_embedding_groups$", _most(4)),
)  # fmt: skip


def tiny(name: str, config_class: Any, level: str = "small") -> Any:
    """A configuration of this class, cut to `level`, with the overrides of this architecture.

    Raises whatever the class raises for values that do not fit together.
    """
    if name in MADE:
        return MADE[name]()
    values = config_class().to_dict()
    _cut(values, level, {})
    if level == "small":
        _merge(values, OVERRIDES.get(name, {}))
    return config_class.from_dict(values)


def _merge(values: dict[str, Any], other: dict[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = value


def _cut(values: dict[str, Any], level: str, specials: dict[int, int]) -> None:
    """Cuts the fields of one configuration in place, and of those inside it; specials: old token id -> new one."""
    if "depths" not in values:
        for key in _STAGES:
            values.pop(key, None)
    heads, rotary = values.get("num_attention_heads"), values.get("qk_rope_head_dim")
    for key in ("head_dim", "qk_head_dim"):  # derived from the two kinds of a head's dimensions
        if rotary is not None and level == "small":
            values.pop(key, None)
    kept = {} if level == "whole" else _kept_layers(values)
    for key, value in list(values.items()):
        if not isinstance(key, str):  # labels by number
            continue
        if key == "per_layer_config" and kept and isinstance(value, dict):
            layers = kept.get(values.get("num_hidden_layers", 0), []) or max(kept.values(), key=len)
            chosen = {i: value[layer] for i, layer in enumerate(layers) if layer in value}
            for layer in chosen.values():
                _cut(layer, level, specials)
            values[key] = chosen or None
        elif isinstance(value, dict):
            _cut_rope(value) if "rope" in key and level == "small" else _cut(value, level, specials)
        elif _DROPOUT.search(key) and isinstance(value, float):
            values[key] = 0.0
        elif level == "whole" or isinstance(value, bool):
            continue
        elif isinstance(value, int) and _LAYERS.match(key) and value != len(values.get("depths") or ()):
            values[key] = len(kept[value]) if value in kept else min(value, 2)
        elif isinstance(value, int) and _SPECIAL.search(key):
            values[key] = _special(value, specials)
        elif isinstance(value, list | tuple):
            values[key] = _cut_list(key, list(value), level, kept, specials)
        elif isinstance(value, int):
            multi_head = heads is not None and value == heads and "key_value" in key
            values[key] = min(value, HEADS) if multi_head and level == "small" else _by_rule(key, value, level)
    if level == "small":
        if "stage_out_channels" not in values:
            _cut_stages(values)
        _cut_image(values)
        for key, most in (("num_key_value_heads", HEADS), ("head_dim", HEAD_DIM)):
            if key in values and values[key] is None:
                values[key] = most
    for key in ("use_cache", "apply_spec_augment", "use_mamba_kernels"):
        if key in values:
            values[key] = False


def _by_rule(key: str, value: int, level: str) -> int:
    for pattern, rule in (*_COUNTS, *_SIZES) if level == "small" else _COUNTS:
        if re.search(pattern, key):
            return rule(value)
    return value


def _special(value: int, specials: dict[int, int]) -> int:
    return specials.setdefault(value, FIRST_SPECIAL + len(specials)) if value >= FIRST_SPECIAL else value


def _kept_layers(values: dict[str, Any]) -> dict[int, list[int]]:
    """By a number of layers: which of them stay, the first of each kind where a list of that length names kinds."""
    kept = {}
    stages = len(values.get("depths") or ())  # a number of stages is none of layers
    for key, count in values.items():
        if (
            isinstance(key, str)
            and isinstance(count, int)
            and not isinstance(count, bool)
            and _LAYERS.match(key)
            and 2 < count != stages
        ):
            kinds = [v for v in values.values() if isinstance(v, list) and len(v) == count and isinstance(v[0], str)]
            kind_of = list(zip(*kinds, strict=True)) or [()] * count
            first = sorted({kind: i for i, kind in reversed(list(enumerate(kind_of)))}.values())
            kept[count] = first if len(first) > 1 else [0, count - 1]
    return kept


def _cut_list(key: str, value: list[Any], level: str, kept: dict[int, list[int]], specials: dict[int, int]) -> Any:
    whole = all(isinstance(item, int) and not isinstance(item, bool) for item in value) and bool(value)
    if _SPECIAL.search(key) and whole:
        return [_special(item, specials) for item in value]
    if key in ("depths", "depth") and whole:
        return [min(item, 1) for item in value]
    if len(value) in kept:
        return [value[i] for i in kept[len(value)]]
    if whole and kept and key not in _STAGES and re.search(r"(indexes|indices|layers?|indx)$", key):
        count = len(max(kept.values(), key=len))
        return [item for item in value if item < count] or [count - 1]
    if level == "small" and whole and key in _LISTS:
        return [min(item, _LISTS[key]) for item in value]
    return value


def _cut_stages(values: dict[str, Any]) -> None:
    """Widths by stage: 128 at most, in about the same proportions."""
    for key in _STAGE_WIDTHS:
        widths = values.get(key)
        if isinstance(widths, list | tuple) and all(isinstance(width, int) for width in widths) and widths:
            values[key] = [max(16, width * 128 // max(widths) // 16 * 16) for width in widths]


def _cut_rope(rope: dict[str, Any]) -> None:
    """Lists with an entry for each frequency: 8 of a head of 16. Models of images read a section where none is set."""
    if "rope_theta" in rope:
        rope.setdefault("mrope_section", [2, 3, 3])
    for key, value in rope.items():
        if isinstance(value, dict):
            _cut_rope(value)
        elif key == "mrope_section":
            rope[key] = [2, 3, 3]
        elif isinstance(value, list):
            rope[key] = value[: HEAD_DIM // 2]


def _cut_image(values: dict[str, Any]) -> None:
    size, patch = values.get("image_size"), values.get("patch_size")
    if isinstance(size, int):
        side = patch if isinstance(patch, int) else 16
        values["image_size"] = min(size, side * max(2, 64 // side))
