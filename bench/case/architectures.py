"""Shapes of decoders by closed form: of GPT-2, and of those whose block is built as Llama's. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.case.config_json import check_sizes

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
    window: int | None = None  # tokens that attention reaches back where it slides

    @property
    def num_params(self) -> int:
        return self.num_layers * self.block_params + self.outside_params

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence that can be measured: attention here is causal over the whole length."""
        return min(self.max_positions, self.window or self.max_positions)

    @property
    def why(self) -> str:
        """Why it is no longer than that, as it stands behind 'longer than ... allows'."""
        slides = self.longest < self.max_positions
        return ", whose attention slides beyond that, which is not measured" if slides else ""

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


# transformers' own values where a config.json is silent.
_GPT2 = {"n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024, "vocab_size": 50257}
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
    head = 0 if is_tied(c) else vocab * d
    return ModelShape(
        name, "gpt2", layers, d, positions, projections,
        block_params=sum(p.params for p in projections) + 4 * d,  # two LayerNorms with weight and bias
        outside_params=(vocab + positions) * d + 2 * d + head,
        dropout=max(c.get(key, 0.1) or 0.0 for key in ("resid_pdrop", "embd_pdrop", "attn_pdrop")),
        config=dict(c),
    )  # fmt: skip


_SIZES = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size",
    "max_position_embeddings",
)  # fmt: skip


@dataclass(frozen=True)
class _Family:
    """How an architecture differs from Llama, and transformers' own values where its config.json is silent."""

    sizes: tuple[int, ...]  # as _SIZES
    kv_heads: int | None = None  # None: as many as heads
    head_dim: int | None = None  # None: hidden_size / heads
    window: int | None = None
    tied: bool = False
    biased: bool = False  # it has attention_bias
    qk_norms: bool = False  # a norm over each head's q, and one over its k
    norms: int = 2  # of hidden_size
    fused: bool = False  # q, k and v are one projection, and so are gate and up

    def bias(self, c: Mapping[str, Any], key: str) -> bool:
        return bool(c.get(key, False)) if self.biased else False


_FAMILIES = {
    "llama": _Family((4096, 32, 32, 11008, 32000, 2048), biased=True),
    "mistral": _Family((4096, 32, 32, 14336, 32000, 131072), kv_heads=8, window=4096),
    "qwen3": _Family((4096, 32, 32, 22016, 151936, 32768), kv_heads=32, head_dim=128, biased=True, qk_norms=True),
    "gemma3_text": _Family(
        (2304, 26, 8, 9216, 262208, 131072),
        kv_heads=4, head_dim=256, window=4096, tied=True, biased=True, qk_norms=True, norms=4,
    ),
    "phi3": _Family((3072, 32, 32, 8192, 32064, 4096), fused=True),
}  # fmt: skip


def _like_llama(name: str, c: Mapping[str, Any]) -> ModelShape:
    family, kind = _FAMILIES[c["model_type"]], c["model_type"]
    defaults = dict(zip(_SIZES, family.sizes, strict=True))
    sizes = {**defaults, **c}
    kv_heads = c.get("num_key_value_heads", family.kv_heads) or sizes["num_attention_heads"]
    sizes["num_key_value_heads"] = kv_heads
    given = c.get("head_dim") or family.head_dim
    divided = {"num_attention_heads": "num_key_value_heads"}
    if kind == "llama" or not given:
        divided["hidden_size"] = "num_attention_heads"
    check_sizes(sizes, name, defaults, divided)
    d, layers, heads, inner, vocab, positions = (sizes[key] for key in _SIZES)
    q, kv = heads * (given or d // heads), kv_heads * (given or d // heads)
    bias, mlp_bias = family.bias(c, "attention_bias"), kind == "llama" and family.bias(c, "mlp_bias")
    widths = {"qkv": q + 2 * kv} if family.fused else {"q": q, "k": kv, "v": kv}
    inners = {"gate_up": 2 * inner} if family.fused else {"gate": inner, "up": inner}
    reads = tuple(Projection(f"self_attn.{x}_proj", d, width, bias) for x, width in widths.items())
    gates = tuple(Projection(f"mlp.{x}_proj", d, width, mlp_bias) for x, width in inners.items())
    out = Projection("self_attn.o_proj", q, d, bias)
    down = Projection("mlp.down_proj", inner, d, mlp_bias)
    projections = (out, *reads, *gates, down) if family.fused else (*reads, out, *gates, down)
    return ModelShape(
        name, kind, layers, d, positions, projections,
        block_params=sum(p.params for p in projections) + family.norms * d + 2 * family.qk_norms * (q // heads),
        outside_params=vocab * d * (1 if is_tied(c) else 2) + d,
        dropout=max(c.get(key) or 0.0 for key in ("attention_dropout", *["resid_pdrop", "embd_pdrop"] * family.fused)),
        config=dict(c),
        window=window_of(c, family.window),
    )  # fmt: skip


def window_of(c: Mapping[str, Any], default: int | None = None) -> int | None:
    """The sliding window of a config.json's fields; None where attention does not slide."""
    window = c.get("sliding_window", default)
    on = c.get("use_sliding_window", not str(c.get("model_type")).startswith("qwen"))
    slides = "sliding_attention" in (c.get("layer_types") or ["sliding_attention"])
    return window if on and slides and isinstance(window, int) and window > 0 else None


def vocabulary_of(c: Mapping[str, Any]) -> int | None:
    """Words, as transformers has them where a config.json is silent; None where that is not known."""
    family = _FAMILIES.get(str(c.get("model_type")))
    default = family.sizes[_SIZES.index("vocab_size")] if family else _GPT2["vocab_size"] if _is_gpt2(c) else None
    return c.get("vocab_size", default)


def is_tied(c: Mapping[str, Any]) -> bool:
    """Whether the head is the embeddings' own weight, by the same rule."""
    family = _FAMILIES.get(str(c.get("model_type")))
    return bool(c.get("tie_word_embeddings", family.tied if family else _is_gpt2(c)))


def _is_gpt2(c: Mapping[str, Any]) -> bool:
    return c.get("model_type") == "gpt2"


CLOSED_FORMS = {"gpt2": _gpt2, **dict.fromkeys(_FAMILIES, _like_llama)}
