"""Models for the tests of accelerate, and what is compared between two of them."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from kernels.peft import accelerate

FEATURES = 24
VOCABULARY = 61


class Stack(nn.Module):
    """Three layers of one kind; `rest` has none."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        make = nn.Linear if kind == "linear" else lambda k, n: Conv1D(n, k)
        self.first = make(FEATURES, 40)
        self.second = make(40, 32)
        self.rest = nn.Linear(32, 8)
        if kind == "conv1d":
            nn.init.normal_(self.first.weight, std=0.2)
            nn.init.normal_(self.second.weight, std=0.2)

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(torch.tanh(self.second(torch.tanh(self.first(x)))))


def gpt2() -> nn.Module:
    sizes = {"n_embd": 32, "n_layer": 2, "n_head": 2, "vocab_size": VOCABULARY, "n_positions": 32}
    off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "use_cache": False}
    tokens = {"bos_token_id": 0, "eos_token_id": 0}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, **off, **tokens))


def llama() -> nn.Module:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "vocab_size": VOCABULARY}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32, "use_cache": False}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads))


def config(**options: Any) -> LoraConfig:
    """LoRA of rank 4 with a drawn B, on every layer of a Stack unless the options say otherwise."""
    defaults = {"target_modules": ["first", "second"], "r": 4, "lora_alpha": 12, "init_lora_weights": False}
    return LoraConfig(**(defaults | options))


def tune(base: nn.Module, accelerated: bool, lora: LoraConfig, **options: Any) -> nn.Module:
    """The PEFT model, its adapters drawn from one seed."""
    torch.manual_seed(1)
    model = get_peft_model(base, lora, **options)
    if accelerated:
        accelerate(model)
    return model


def stack(kind: str, accelerated: bool, lora: LoraConfig | None = None, **options: Any) -> nn.Module:
    torch.manual_seed(0)
    lora = lora or config()
    lora.fan_in_fan_out = kind == "conv1d"
    return tune(Stack(kind), accelerated, lora, **options)


def inputs(rows: int = 7) -> Tensor:
    return torch.randn(2, rows, FEATURES, generator=torch.Generator().manual_seed(5))


def observe(model: nn.Module, x: Tensor, **arguments: Any) -> dict[str, Tensor]:
    """The output, the gradient of x and every parameter's, by name; which parameters train, too."""
    model.zero_grad()
    x = x.clone().requires_grad_(True)
    y = model(x, **arguments)
    (y * torch.linspace(-1, 1, y.shape[-1], dtype=y.dtype)).square().sum().backward()
    assert x.grad is not None
    seen = {"output": y.detach(), "grad of x": x.grad}
    seen |= {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return seen


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor], rtol: float = 1e-4, atol: float = 1e-5) -> None:
    """The same names, dtypes and values; the tolerance is for float32 sums in another order."""
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        torch.testing.assert_close(
            ours[name], value, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )
