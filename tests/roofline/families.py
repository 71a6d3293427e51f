"""Small models of every architecture that has a closed form, and what of them may be adapted."""

from bench.methods.registry import methods
from tests.models.tiny import GPT2, LLAMA, NO_DROPOUT

METHODS = tuple(methods())
# Three blocks: with the upper half trained, one lies below the cut, one at it, one above.
G = {**GPT2, **NO_DROPOUT, "n_layer": 3}
L = {**LLAMA, "num_hidden_layers": 3}
FAMILIES = {
    "gpt2": G,
    "gpt2-untied": {**G, "tie_word_embeddings": False, "n_inner": 40},
    "llama": L,
    "llama-tied": {**L, "tie_word_embeddings": True, "attention_bias": True, "head_dim": 12},
    "qwen2": {**L, "model_type": "qwen2", "tie_word_embeddings": False},
    "qwen3": {**L, "model_type": "qwen3", "tie_word_embeddings": False, "head_dim": 8},
    "gemma3": {**L, "model_type": "gemma3_text", "head_dim": 12, "sliding_window": 64},
    "phi3": {**L, "model_type": "phi3", "tie_word_embeddings": True, "pad_token_id": 0, "eos_token_id": 1},
    "mistral": {**L, "model_type": "mistral", "tie_word_embeddings": False, "sliding_window": None},
}
# All at once, q alone, v alone, the MLP alone, one of two siblings: what requires grad differs in each.
GROUPS = ("self_attn.qkv", "mlp.gate_up")
TARGETS = {
    "gpt2": ("all-linear", "attn.c_attn", "attn.c_proj", "mlp.c_proj", "c_proj"),
    "llama": ("all-linear", "q_proj", "k_proj", "v_proj", "q_proj,v_proj", "o_proj", "up_proj", "down_proj"),
}
