"""Small configurations and cases, for the tests of models and of methods."""

import json
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bench.case import Case
from bench.methods.registry import methods

GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64, "vocab_size": 101}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 101,
    "max_position_embeddings": 64,
}
NO_DROPOUT = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}


def write_config(folder: Path, fields: dict[str, Any], **more: Any) -> str:
    """A config.json in `folder`, as save_pretrained would leave it; returns its path."""
    path = folder / f"{fields['model_type']}-{len(list(folder.iterdir()))}.json"
    path.write_text(json.dumps({**fields, **more}), encoding="utf-8")
    return str(path)


def make_case(model: str | None, method: str = "full", level: str = "model", **axes: Any) -> Case:
    """A case with defaults for everything that a test does not speak of."""
    axes_of = methods()[method].axes
    defaults: dict[str, Any] = {
        "level": level,
        "model": model,
        "layer": None,
        "method": method,
        "impl": "eager",
        "trainable_layers": "all",
        "rank": 4 if "rank" in axes_of else None,
        "alpha": 16.0 if "alpha" in axes_of else None,
        "dropout": 0.0 if "dropout" in axes_of else None,
        "targets": "all-linear" if "targets" in axes_of else None,
        "adapter_dtype": None,
        "precision": "fp32",
        "batch": 2,
        "seq": 8,
        "l2": "warm",
    }
    return Case(**{**defaults, **axes})


class Operators(TorchDispatchMode):
    """Names of all operators that run inside of it, and (device, dtype, size) of every tensor that they make."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.made: set[tuple[str, torch.dtype, int]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func._schema.name)
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.made.add((out.device.type, out.dtype, out.numel()))
        return out
