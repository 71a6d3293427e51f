"""Configurations and models of transformers, from the fields of a config.json."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedConfig

from bench.models import attention


def make_config(fields: Mapping[str, Any]) -> PreTrainedConfig:
    """The configuration that a config.json's fields describe, prepared for timing.

    use_cache is off (a cache copies K and V in every layer), and so is pad_token_id: GPT-2 would look for padding in
    its input ids, which synchronizes. Raises ValueError where transformers does not know the model_type.
    """
    fields = dict(fields)
    kind = fields.pop("model_type", None)
    if kind not in CONFIG_MAPPING:
        raise ValueError(f"transformers knows no model_type {kind!r}")
    config = CONFIG_MAPPING[kind].from_dict(fields)
    config.use_cache = False
    config.pad_token_id = None
    return config


def one_block(config: PreTrainedConfig) -> PreTrainedConfig:
    """The same with one block and a vocabulary of 256: the block keeps its real width, and little else is made."""
    config.num_hidden_layers = 1
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:1]
    config.vocab_size = 256
    config.bos_token_id = config.eos_token_id = None
    return config


def check_length(config: PreTrainedConfig, max_positions: int, seq: int) -> None:
    """Raises ValueError where `seq` is more than the model has positions, or leaves a sliding window.

    The attention here is causal over the whole length, which is the model's own only as far as its window reaches.
    """
    if seq > max_positions:
        raise ValueError(f"seq: {seq} is above the model's {max_positions} positions")
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
    if window is not None and slides and seq > window:
        raise ValueError(f"seq: {seq} is above the model's sliding window of {window}, which is not measured here")


def make_model(config: PreTrainedConfig, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The causal language model with transformers' own random weights, drawn on `device` in `dtype`, in training mode.

    Raises ValueError where the architecture has no causal language model, or one that chooses its own attention.
    """
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if kind is None:
        raise ValueError(f"transformers has no causal language model of model_type {config.model_type!r}")
    if not kind._supports_sdpa or not kind._supports_attention_backend:
        raise ValueError(
            f"{kind.__name__} does not let its attention be replaced, and its own one is not measured here"
        )
    with device:
        model = kind._from_config(config, dtype=dtype, attn_implementation=attention.NAME)
    # What every class here falls back to; GPT-2's with a warning, at which torch.compile breaks its graph.
    model.loss_type = "ForCausalLM"
    return model.train()


def model_dropout(module: nn.Module) -> float:
    """The largest dropout probability in a module in training mode, whether a Dropout or a plain attribute."""
    found = [0.0]
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            found.append(part.p)
        found += [v for k, v in vars(part).items() if k.endswith("dropout") and isinstance(v, float)]
    return max(found)
