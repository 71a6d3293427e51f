"""Tiny models of several architectures, their training, and PaCA's reference: dense weights under masked gradients."""

import copy
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel, Trainer, TrainingArguments
from transformers.pytorch_utils import Conv1D

from kernels import PaCALinear
from kernels.paca.model import paca_layers

VOCAB = 101
_TOKENS: dict[str, Any] = {"vocab_size": VOCAB, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
_WIDE: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {
        "n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64,
        "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0,
    },
    "llama": {**_WIDE, "num_key_value_heads": 2, "max_position_embeddings": 64},
    "gpt_neox": {**_WIDE, "max_position_embeddings": 64},
    "opt": {
        "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 4, "num_attention_heads": 4, "word_embed_proj_dim": 32,
        "max_position_embeddings": 64, "dropout": 0.0,
    },
}  # fmt: skip


def make(family: str, dtype: torch.dtype = torch.float32, **more: Any) -> PreTrainedModel:
    """A model with random weights, the same at each call. In float64 their values are exact in float32."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(family, **{**_TOKENS, **CONFIGS[family], **more})
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).to(dtype)


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters by their names in the plain model, and of nothing of PaCA's."""
    parts = {f"{name}.{part}" for name in paca_layers(model) for part in ("columns", "index", "pretrained")}
    return {name: t.detach().clone() for name, t in model.state_dict().items() if name not in parts}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def is_fresh(model: nn.Module) -> bool:
    """Whether the live columns of all layers are what their masters say."""
    layers = paca_layers(model).values()
    assert layers
    return all(torch.equal(live(x), (x.scale * x.columns.detach()).to(x.weight.dtype)) for x in layers)


def live(layer: PaCALinear) -> Tensor:
    return layer.weight.detach()[:, layer.index]


def masked_twin(plain: nn.Module, adapted: nn.Module) -> tuple[nn.Module, list[nn.Parameter]]:
    """A copy of the plain model whose gradients are zero but in PaCA's columns, and the weights that have them."""
    twin = copy.deepcopy(plain).requires_grad_(False)
    trained = []
    for name, layer in paca_layers(adapted).items():
        module = twin.get_submodule(name)
        weight = module.get_parameter("weight").requires_grad_()
        mask = torch.zeros_like(weight)
        mask[layer.index if isinstance(module, Conv1D) else (slice(None), layer.index)] = 1
        weight.register_hook(lambda grad, mask=mask: grad * mask)
        trained.append(weight)
    return twin, trained


def batches(count: int, seed: int = 1) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randint(3, VOCAB, (12,), generator=generator) for _ in range(count)]
    return [{"input_ids": row, "labels": row} for row in rows]


def trainer(model: nn.Module, folder: Path, optimizer: torch.optim.Optimizer | None = None, **more: Any) -> Trainer:
    """transformers' Trainer: 2 rows x 2 accumulated batches a step, 4 steps, no clipping."""
    options: dict[str, Any] = {
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 4, "learning_rate": 1e-2,
        "max_grad_norm": 0.0, "logging_steps": 1, "save_strategy": "no", "seed": 3, **more,
    }  # fmt: skip
    args = TrainingArguments(str(folder), use_cpu=True, report_to=[], disable_tqdm=True, **options)
    data, held_out = batches(16), batches(4, seed=2)
    return Trainer(model, args, train_dataset=data, eval_dataset=held_out, optimizers=(optimizer, None))


def losses(run: Trainer) -> list[float]:
    return [entry["loss"] for entry in run.state.log_history if "loss" in entry]


def trained(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int = 1) -> float:
    """One step of an ordinary loop, on two rows; returns the loss before it."""
    ids = torch.stack([row["input_ids"] for row in batches(2, seed)])
    optimizer.zero_grad()
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    return float(loss.detach())
