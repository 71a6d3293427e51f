"""Levels block and model: transformers' decoders, whatever the architecture, and what they are called with."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from bench.case import Case
from bench.methods.adapt import decoder_blocks
from bench.models.config import check_length, make_config, make_model, model_dropout, one_block
from bench.models.work import Prepared, autocast, called_with


def prepare_block(case: Case, device: torch.device, dtype: torch.dtype) -> Prepared:
    """The first decoder block at its real width, called as its own model calls it; x (batch, seq, hidden).

    What else it is called with (rotary tables, position ids) is taken from a forward of a model of that block alone,
    and so lies outside of the timed call, for every architecture alike.
    """
    config = _config(case)
    whole = make_model(one_block(config), device, dtype)
    block = decoder_blocks(whole)[1][0]
    inputs = _inputs(whole, case, device, config.vocab_size)
    with autocast(case.precision, device):
        args, kwargs = called_with(block, lambda: whole(**inputs))
    hidden = args[0] if args else kwargs.pop("hidden_states")
    rest = args[1:]
    x = torch.randn(hidden.shape, device=device, dtype=hidden.dtype, requires_grad=True)
    model = nn.ModuleDict({"block": block})

    def call() -> Tensor:
        out = block(x, *rest, **kwargs)
        return out if isinstance(out, Tensor) else out[0]

    return Prepared(model, x, call, model_dropout(block))


def prepare_model(case: Case, device: torch.device, dtype: torch.dtype) -> Prepared:
    """The whole language model on token ids (batch, seq), with its own causal loss."""
    config = _config(case)
    model = make_model(config, device, dtype)
    inputs = _inputs(model, case, device, config.vocab_size)
    inputs["labels"] = inputs["input_ids"]  # the model shifts them itself
    return Prepared(model, None, lambda: model(**inputs).loss, model_dropout(model))


def _config(case: Case) -> Any:
    assert case.shape is not None
    config = make_config({**case.shape.config, "model_type": case.shape.model_type})
    check_length(config, case.shape.max_positions, case.seq)
    return config


def _inputs(model: nn.Module, case: Case, device: torch.device, vocabulary: int) -> dict[str, Any]:
    """Token ids (batch, seq), and position ids (1, seq) where the model takes them: it need not make them each time."""
    inputs: dict[str, Any] = {
        "input_ids": torch.randint(vocabulary, (case.batch, case.seq), device=device),
        "use_cache": False,
    }
    if "position_ids" in inspect.signature(model.forward).parameters:
        inputs["position_ids"] = torch.arange(case.seq, device=device)[None]
    return inputs
