"""Causal attention for transformers' models that neither builds a mask nor synchronizes.

With use_cache=False their own sdpa path looks for packed sequences in the position ids and reads the answer back, once
per forward; while a CUDA graph is captured (their is_tracing) it builds a real mask instead, so that another
computation is timed. Both happen where the mask is made, and a mask is made only for attentions that registered a
function for it (transformers.masking_utils, seen in 5.17 to 5.23). This one registers none and is causal by itself.
"""

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

NAME = "lorabench_causal"


def causal_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query (batch, heads, seq, d), key and value (batch, kv heads, seq, d) -> (batch, seq, heads, d).

    torch's scaled_dot_product_attention, is_causal, no mask. Raises ValueError where a model wants more than that.
    """
    if attention_mask is not None:
        raise ValueError(f"{type(module).__name__} brings its own attention mask; only causal attention is measured")
    more = [word for word in ("softcap", "s_aux", "position_bias") if kwargs.get(word) is not None]
    if more:  # some versions of sdpa_attention_forward leave them out without a word
        raise ValueError(f"{type(module).__name__} asks for {more[0]}, which causal attention alone does not compute")
    kwargs.pop("is_causal", None)
    return sdpa_attention_forward(
        module, query, key, value, None, dropout=dropout, scaling=scaling, is_causal=True, **kwargs
    )


AttentionInterface.register(NAME, causal_attention)
