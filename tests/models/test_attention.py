"""The attention of our own: no mask, no synchronization, the same numbers as transformers' own sdpa."""

import sys
from typing import Any

import pytest
import torch
import transformers

from bench.models.attention import causal_attention
from bench.models.config import make_config, make_model
from tests.models.tiny import GPT2, LLAMA, NO_DROPOUT, Operators

CPU = torch.device("cpu")
MISTRAL = {**LLAMA, "model_type": "mistral", "sliding_window": None}
FIELDS = [
    pytest.param({**GPT2, "pad_token_id": 5}, id="gpt2"),
    pytest.param(LLAMA, id="llama"),
    pytest.param(MISTRAL, id="mistral"),
]


@pytest.fixture
def masks(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The keyword arguments of every call of scaled_dot_product_attention."""
    seen: list[dict[str, Any]] = []
    real = torch.nn.functional.scaled_dot_product_attention

    def spy(*args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(kwargs)
        return real(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", spy)
    return seen


def _ids(batch: int = 2, seq: int = 16) -> torch.Tensor:
    return torch.randint(101, (batch, seq), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("tracing", [False, True], ids=["eager", "tracing"])
@pytest.mark.parametrize("fields", FIELDS)
def test_forward_neither_masks_nor_synchronizes(
    fields: dict[str, Any], tracing: bool, masks: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(make_config(fields), CPU, torch.float32)
    if tracing:  # what transformers believes while a CUDA graph is captured
        for name, module in list(sys.modules.items()):
            if name.startswith("transformers.") and "is_tracing" in vars(module):
                monkeypatch.setattr(module, "is_tracing", lambda *_: True)
    ids = _ids()
    with Operators() as operators:
        loss = model(input_ids=ids, labels=ids, position_ids=torch.arange(16)[None], use_cache=False).loss
    assert "aten::_local_scalar_dense" not in operators.names
    assert len(masks) == 4
    assert all(call["attn_mask"] is None and call["is_causal"] is True for call in masks)
    loss.backward()


def test_the_recorder_sees_a_synchronization() -> None:
    with Operators() as operators:
        torch.ones(3).all().item()
    assert "aten::_local_scalar_dense" in operators.names


@pytest.mark.parametrize("fields", FIELDS)
def test_logits_equal_those_of_the_stock_model(fields: dict[str, Any]) -> None:
    dropout = NO_DROPOUT if fields["model_type"] == "gpt2" else {}
    ours = make_model(make_config({**fields, **dropout}), CPU, torch.float32)
    stock = transformers.AutoModelForCausalLM.from_config(
        make_config({**fields, **dropout}), attn_implementation="sdpa"
    )
    stock.load_state_dict(ours.state_dict())
    ids = _ids()
    logits = ours(input_ids=ids, position_ids=torch.arange(16)[None], use_cache=False).logits
    torch.testing.assert_close(logits, stock.train()(input_ids=ids).logits, rtol=0, atol=1e-6)


def test_more_than_causal_attention_is_refused() -> None:
    query = torch.randn(1, 2, 4, 8)
    with pytest.raises(ValueError, match="Module asks for softcap"):
        causal_attention(torch.nn.Module(), query, query, query, None, softcap=30.0)


def test_a_mask_of_the_model_is_refused() -> None:
    model = make_model(make_config(LLAMA), CPU, torch.float32)
    mask = torch.zeros(2, 1, 16, 16)
    with pytest.raises(ValueError, match="its own attention mask"):
        model(input_ids=_ids(), attention_mask=mask, use_cache=False)
