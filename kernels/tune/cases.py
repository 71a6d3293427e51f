"""The cases that the sweeps measure, written out, since kernels/ knows nothing of bench/: a test compares the two."""

from dataclasses import dataclass, replace

from ..runtime.dispatch import Case


@dataclass(frozen=True)
class Layer:
    """A linear layer of N out_features and K in_features. conv1d: its weight is stored as (K, N)."""

    n: int
    k: int
    conv1d: bool = False
    bias: bool = False


def _gpt2(d: int) -> tuple[Layer, ...]:
    shapes = ((3 * d, d), (d, d), (4 * d, d), (d, 4 * d))
    return tuple(Layer(n, k, conv1d=True, bias=True) for n, k in shapes)


def _llama(d: int, inner: int, key_value: int) -> tuple[Layer, ...]:
    shapes = dict.fromkeys(((d, d), (key_value, d), (inner, d), (d, inner)))
    return tuple(Layer(n, k) for n, k in shapes)


#: The projections of a decoder block, each shape once.
MODELS = {
    "gpt2-medium": _gpt2(1024),
    "gpt2-xl": _gpt2(1600),
    "tinyllama": _llama(2048, 5632, 256),
    "llama2-7b": _llama(4096, 11008, 4096),
}
SQUARES = tuple(Layer(d, d) for d in (1024, 2048, 4096))

#: Tokens and rank of the training sweeps (table1, lengths, table2), with dropout, and of the layer sweeps (layers,
#: peers), without. An entry holds for tokens within a factor of 1.5, so that these reach from 342 to 6144 tokens:
#: lengths from 128 to 1024 at batch 4. LLaMA2-7B trains in table2 alone, at 8 x 512 tokens.
TRAINED_TOKENS = {"gpt2-medium": (4096, 2048, 1024, 512), "gpt2-xl": (4096, 2048, 1024, 512),
                  "tinyllama": (4096, 2048, 1024, 512), "llama2-7b": (4096,)}  # fmt: skip
TRAINED_RANK, LAYERS_RANK, LAYERS_TOKENS = 8, 16, 4096
#: Tokens of sweep methods, which trains without dropout; by model.
METHODS_TOKENS = {"gpt2-medium": 2048, "gpt2-xl": 2048, "tinyllama": 2048}


def sweep_cases(arch: int, sms: int, device: str = "") -> list[Case]:
    """Every case of the sweeps on a GPU, those of the training sweeps first, each once."""
    base = Case(1, 1, 1, TRAINED_RANK, arch, sms, device=device)
    found = [
        _at(replace(base, m=m, dropout=True), layer)
        for model, layers in MODELS.items()
        for m in TRAINED_TOKENS[model]
        for layer in layers
    ]
    found += [_at(replace(base, m=m), layer) for model, m in METHODS_TOKENS.items() for layer in MODELS[model]]
    plain = replace(base, m=LAYERS_TOKENS, rank=LAYERS_RANK)
    found += [_at(plain, layer) for layer in (*(each for layers in MODELS.values() for each in layers), *SQUARES)]
    return list(dict.fromkeys(found))


def cases_at(arch: int, sms: int, device: str, tokens: int, rank: int, dropout: bool) -> list[Case]:
    """The same layers at other tokens, rank and dropout."""
    base = Case(tokens, 1, 1, rank, arch, sms, dropout, device=device)
    layers = (*(each for layers in MODELS.values() for each in layers), *SQUARES)
    return list(dict.fromkeys(_at(base, layer) for layer in layers))


def _at(case: Case, layer: Layer) -> Case:
    return replace(case, n=layer.n, k=layer.k, conv1d=layer.conv1d, bias=layer.bias)
