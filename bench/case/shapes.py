"""Shapes of models by closed form, without torch: what `list` shows and what trainable counts are made of."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

from bench.case.config_json import check_sizes, read_config
from bench.errors import UserError
from bench.reading import is_there
from bench.yamlfile import load_yaml

HERE = Path(__file__).parent
LONGEST_S = 300  # that transformers may take to build a model without memory; Llama 2 7B takes 3 s, most of it imports

# Architectures whose block is Llama's, as far as products go.
LLAMA_LIKE = ("llama", "mistral", "qwen2", "qwen3")

# Projections of a block that read the same input, by the name of the group.
SIBLINGS = {
    "self_attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "mlp.gate_up": ("mlp.gate_proj", "mlp.up_proj"),
}


@dataclass(frozen=True)
class Projection:
    """One linear layer of a decoder block. GPT-2's Conv1D stores its weight as (in_features, out_features)."""

    name: str
    in_features: int
    out_features: int
    bias: bool
    conv1d: bool = False

    @property
    def params(self) -> int:
        return self.out_features * (self.in_features + self.bias)


@dataclass(frozen=True)
class ModelShape:
    """What can be said of a model without building it."""

    name: str
    model_type: str
    num_layers: int
    hidden_size: int
    max_positions: int
    projections: tuple[Projection, ...]  # of one block, in the order of the model's own modules
    block_params: int  # all parameters of one block
    outside_params: int  # embeddings, final norm and head, a tied head counted once
    dropout: float  # the largest dropout of the model itself in training mode
    config: Mapping[str, Any] = field(repr=False, compare=False, hash=False)  # keyword arguments of its config

    @property
    def num_params(self) -> int:
        return self.num_layers * self.block_params + self.outside_params

    def match(self, target: str) -> list[Projection]:
        """The projections a target names: its whole name or, as in PEFT, its last parts."""
        if target == "all-linear":
            return list(self.projections)
        return [p for p in self.projections if p.name == target or p.name.endswith("." + target)]

    @property
    def groups(self) -> dict[str, tuple[Projection, ...]]:
        """Siblings that read the same x, by the group's name; GPT-2 has none, its c_attn is one product already."""
        if self.model_type not in LLAMA_LIKE:
            return {}
        return {group: tuple(p for p in self.projections if p.name in names) for group, names in SIBLINGS.items()}

    def layer(self, name: str) -> tuple[Projection, ...]:
        """What a value of the layer axis names: one projection, or the siblings of a group; nothing if unknown."""
        return self.groups.get(name) or tuple(p for p in self.projections if p.name == name)

    def distinct_projections(self) -> list[Projection]:
        """One projection for each shape; q_proj stands for o_proj where both are square."""
        seen: dict[tuple[int, int, bool, bool], Projection] = {}
        for p in self.projections:
            seen.setdefault((p.in_features, p.out_features, p.bias, p.conv1d), p)
        return list(seen.values())


# transformers' own values where a config.json is silent, and what has to divide what.
_GPT2 = {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50257}
_LLAMA = {
    "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "intermediate_size": 11008,
    "vocab_size": 32000, "max_position_embeddings": 2048,
}  # fmt: skip
# GPT-2's other names for its sizes, which count where both stand.
_ALIASES = {
    "hidden_size": "n_embd", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
}  # fmt: skip


def _gpt2(name: str, c: Mapping[str, Any]) -> ModelShape:
    sizes = {**_GPT2, **c, **{_ALIASES[key]: c[key] for key in _ALIASES.keys() & c.keys()}}
    check_sizes(sizes, name, _GPT2, {"n_embd": "n_head"})
    d, layers, positions, vocab = (sizes[key] for key in ("n_embd", "n_layer", "n_positions", "vocab_size"))
    inner = c.get("n_inner") or 4 * d
    projections = (
        Projection("attn.c_attn", d, 3 * d, True, conv1d=True),
        Projection("attn.c_proj", d, d, True, conv1d=True),
        Projection("mlp.c_fc", d, inner, True, conv1d=True),
        Projection("mlp.c_proj", inner, d, True, conv1d=True),
    )
    head = 0 if c.get("tie_word_embeddings", True) else vocab * d
    return ModelShape(
        name, "gpt2", layers, d, positions, projections,
        block_params=sum(p.params for p in projections) + 4 * d,  # two LayerNorms with weight and bias
        outside_params=(vocab + positions) * d + 2 * d + head,
        dropout=max(c.get(key, 0.1) or 0.0 for key in ("resid_pdrop", "embd_pdrop", "attn_pdrop")),
        config=dict(c),
    )  # fmt: skip


def _llama(name: str, c: Mapping[str, Any]) -> ModelShape:
    sizes = {**_LLAMA, **c}
    sizes["num_key_value_heads"] = kv_heads = c.get("num_key_value_heads") or sizes["num_attention_heads"]
    check_sizes(
        sizes, name, _LLAMA,
        {"hidden_size": "num_attention_heads", "num_attention_heads": "num_key_value_heads"},
    )  # fmt: skip
    d, layers, heads, inner, vocab, positions = (sizes[key] for key in _LLAMA)
    head_dim = c.get("head_dim") or d // heads
    bias, mlp_bias = c.get("attention_bias", False), c.get("mlp_bias", False)
    projections = (
        Projection("self_attn.q_proj", d, heads * head_dim, bias),
        Projection("self_attn.k_proj", d, kv_heads * head_dim, bias),
        Projection("self_attn.v_proj", d, kv_heads * head_dim, bias),
        Projection("self_attn.o_proj", heads * head_dim, d, bias),
        Projection("mlp.gate_proj", d, inner, mlp_bias),
        Projection("mlp.up_proj", d, inner, mlp_bias),
        Projection("mlp.down_proj", inner, d, mlp_bias),
    )
    return ModelShape(
        name, "llama", layers, d, positions, projections,
        block_params=sum(p.params for p in projections) + 2 * d,  # two RMSNorms
        outside_params=vocab * d * (1 if c.get("tie_word_embeddings", False) else 2) + d,
        dropout=c.get("attention_dropout") or 0.0,
        config=dict(c),
    )  # fmt: skip


@cache
def named_models() -> dict[str, Mapping[str, Any]]:
    """The models of models.yaml, by name."""
    return load_yaml(HERE / "models.yaml").value


@cache
def model_shape(model: str) -> ModelShape:
    """The shape of a named model, or of the config.json at a path.

    Raises UserError where the name is unknown, or the file is not a config that transformers understands.
    """
    if model in named_models():
        return _from_config(model, named_models()[model])
    path = Path(model)
    if is_there(path.is_dir):
        path = path / "config.json"
    if not is_there(path.is_file):
        known = ", ".join(named_models())
        raise UserError(f"model: {model!r} is neither a known model ({known}) nor the path of a config.json")
    return _from_config(model, read_config(path), path)


def _from_config(name: str, config: Mapping[str, Any], path: Path | None = None) -> ModelShape:
    kind = {"gpt2": _gpt2, "llama": _llama}.get(config["model_type"])
    if kind is None:
        return ask_transformers(name, path)
    return kind(name, config)


def ask_transformers(name: str, path: Path | None) -> ModelShape:
    """The shape of an architecture this file has no closed form for, read off the model on the meta device.

    In a process of its own, so that this one stays without torch.
    """
    command = [sys.executable, "-m", "bench.models.inspect", str(path)]
    env = os.environ | {"HF_HUB_OFFLINE": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=HERE.parents[1], env=env, timeout=LONGEST_S)
    except subprocess.TimeoutExpired:
        raise UserError(f"{path}: transformers was still building this model after {LONGEST_S} s") from None
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise UserError(f"{path}: transformers cannot build this model ({last[:300]})")
    found = json.loads(done.stdout)
    projections = tuple(Projection(**p) for p in found.pop("projections"))
    return ModelShape(name=name, projections=projections, **found)


def square(layer: str) -> Projection | None:
    """The projection that `square-N` names, or None for any other layer."""
    head, _, size = layer.partition("-")
    if head != "square" or not (size.isascii() and size.isdigit() and len(size) < 10) or int(size) == 0:
        return None
    return Projection(layer, int(size), int(size), bias=False)


def trainable_blocks(trainable_layers: str, num_layers: int) -> int:
    """How many blocks train, counted from the top: all, upper-1/2, upper-3/4 or a count.

    A fraction rounds to the nearest whole block, up on a tie. Raises ValueError on anything else.
    """
    if trainable_layers == "all":
        return num_layers
    if trainable_layers.startswith("upper-"):
        share = Fraction(trainable_layers.removeprefix("upper-"))
        if not 0 < share <= 1:
            raise ValueError(f"{trainable_layers!r}: the fraction must be above 0 and at most 1")
        return int(share * num_layers + Fraction(1, 2))  # int() cuts, so adding a half rounds up on a tie
    count = int(trainable_layers)
    if not 1 <= count <= num_layers:
        raise ValueError(f"{trainable_layers!r}: the model has {num_layers} blocks")
    return count
