"""The config.json of models that published timings are of, by the name in the timings: sizes from the model cards.

Mistral stands as a Llama, whose block it has, since its window does not matter within 4096 tokens.
"""

import json
from typing import Any

_LLAMA = {"model_type": "llama", "vocab_size": 128256, "num_key_value_heads": 8, "max_position_embeddings": 131072}
_GPT3 = {"model_type": "gpt2", "n_positions": 2048}

CONFIGS: dict[str, dict[str, Any]] = {
    "BERT-large": {
        "model_type": "bert", "is_decoder": True, "hidden_size": 1024, "num_hidden_layers": 24,
        "num_attention_heads": 16, "intermediate_size": 4096, "vocab_size": 30522,
    },
    "GPT-2 large (36 layers)": {"model_type": "gpt2", "n_embd": 1280, "n_layer": 36, "n_head": 20},
    "GPT-3 2.7B": {**_GPT3, "n_embd": 2560, "n_layer": 32, "n_head": 32},
    # Heads as in GPT-3 XL, which has 24 of 128 each.
    "GPT-2 arch, d 3072, 24 layers": {**_GPT3, "n_embd": 3072, "n_layer": 24, "n_head": 24},
    "OPT-1.3B": {
        "model_type": "opt", "hidden_size": 2048, "num_hidden_layers": 24, "num_attention_heads": 32, "ffn_dim": 8192,
        "vocab_size": 50272, "word_embed_proj_dim": 2048, "max_position_embeddings": 2048,
    },
    "GPT2-medium, one block": {"model_type": "gpt2", "n_embd": 1024, "n_layer": 24, "n_head": 16},
    "mistralai/Mistral-7B-v0.1": {
        **_LLAMA, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 14336,
        "vocab_size": 32000,
    },
    "ibm/PowerLM-3b": {
        "model_type": "granite", "hidden_size": 2304, "num_hidden_layers": 40, "num_attention_heads": 36,
        "num_key_value_heads": 36, "intermediate_size": 9216, "vocab_size": 49152, "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    },
    "bigcode/gpt_bigcode-santacoder": {
        "model_type": "gpt_bigcode", "n_embd": 2048, "n_layer": 24, "n_head": 16, "n_inner": 8192, "n_positions": 2048,
        "vocab_size": 49280, "multi_query": True, "bos_token_id": 0, "eos_token_id": 0,
    },
    "Llama-3.2-1B": {
        **_LLAMA, "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 32, "head_dim": 64,
        "intermediate_size": 8192, "tie_word_embeddings": True,
    },
    "Llama-3.2-3B": {
        **_LLAMA, "hidden_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 24, "head_dim": 128,
        "intermediate_size": 8192, "tie_word_embeddings": True,
    },
    "Llama-3.1-8B": {
        **_LLAMA, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 14336,
    },
}  # fmt: skip

# Dropouts of the architectures above, which are off where a model only infers.
_DROPOUTS = {
    "gpt2": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "gpt_bigcode": ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "opt": ("dropout", "attention_dropout"),
}


def config_text(name: str, training: bool) -> str:
    """The text of the config.json. training: with the architecture's own dropout."""
    config = CONFIGS[name]
    off = {} if training else dict.fromkeys(_DROPOUTS.get(config["model_type"], ()), 0.0)
    return json.dumps({**config, **off})
