"""Which layers and columns paca() chooses, and what it refuses before anything is changed."""

from typing import Any

import pytest
import torch
import transformers
from torch import nn

from kernels.paca import merge_paca, paca, remove_paca
from kernels.paca.model import paca_layers
from kernels.paca.target_layers import seed_of
from tests.kernels.paca.paca_models import make, same, weights

T5 = transformers.T5Config(
    vocab_size=101, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0
)


@pytest.mark.parametrize(
    ("family", "projections"),
    [
        ("gpt2", "attn.c_attn attn.c_proj mlp.c_fc mlp.c_proj"),
        (
            "llama",
            "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj "
            "mlp.down_proj",
        ),
        ("gpt_neox", "attention.query_key_value attention.dense mlp.dense_h_to_4h mlp.dense_4h_to_h"),
        ("opt", "self_attn.k_proj self_attn.v_proj self_attn.q_proj self_attn.out_proj fc1 fc2"),
    ],
)
def test_all_linear_is_every_projection_of_the_blocks(family: str, projections: str) -> None:
    stem = {"gpt2": "transformer.h", "llama": "model.layers", "gpt_neox": "gpt_neox.layers"}.get(
        family, "model.decoder.layers"
    )
    expected = {f"{stem}.{i}.{name}" for i in range(4) for name in projections.split()}
    assert paca_layers(paca(make(family), 4, 8)).keys() == expected


def test_both_stacks_of_an_encoder_and_a_decoder() -> None:
    model = paca(transformers.T5ForConditionalGeneration(T5), 4, 8)
    names = list(paca_layers(model))
    assert sum(n.startswith("encoder.block.") for n in names) == 12
    assert sum(n.startswith("decoder.block.") for n in names) == 20 and len(names) == 32
    with pytest.raises(ValueError, match=r"layers is \[0\].*encoder.block and decoder.block"):
        paca(transformers.T5ForConditionalGeneration(T5), 4, 8, layers=[0])


def test_targets_are_ends_of_names_and_layers_are_blocks() -> None:
    model = paca(make("llama"), 4, 8, targets=["q_proj", "mlp.down_proj"], layers=range(2, 4))
    expected = {f"model.layers.{i}.{n}" for i in (2, 3) for n in ("self_attn.q_proj", "mlp.down_proj")}
    assert paca_layers(model).keys() == expected
    assert paca_layers(paca(make("llama"), 4, 8, targets="lm_head")).keys() == {"lm_head"}
    assert paca_layers(paca(make("llama"), 4, 8, layers=[1])).keys() == {
        n for n, m in make("llama").named_modules() if isinstance(m, nn.Linear) and n.startswith("model.layers.1.")
    }


def test_columns_follow_from_seed_and_name() -> None:
    def indices(seed: int) -> dict[str, list[int]]:
        return {n: x.index.tolist() for n, x in paca_layers(paca(make("llama"), 4, 8, seed=seed)).items()}

    assert indices(0) == indices(0)
    assert all(indices(0)[name] != indices(1)[name] for name in list(indices(0))[:3])
    assert len({tuple(i) for i in indices(0).values()}) > 20
    name = "model.layers.0.self_attn.q_proj"
    generator = torch.Generator().manual_seed(seed_of(name))
    assert indices(0)[name] == sorted(torch.randperm(32, generator=generator)[:4].tolist())


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_first_output_is_the_pretrained_one_and_removal_leaves_no_trace(family: str) -> None:
    model = make(family)
    before, names, ids = weights(model), [n for n, _ in model.named_modules()], torch.arange(3, 12)[None]
    expected = model(input_ids=ids).logits
    kinds = {n: type(m) for n, m in model.named_modules()}
    assert paca(model, 4, 10) is model
    assert torch.equal(model(input_ids=ids).logits, expected)
    with torch.no_grad():
        for layer in paca_layers(model).values():
            layer.columns.normal_()
    assert not torch.equal(model(input_ids=ids).logits, expected)
    assert remove_paca(model) is model
    assert same(weights(model), before) and [n for n, _ in model.named_modules()] == names
    assert {n: type(m) for n, m in model.named_modules()} == kinds and not hasattr(model, "paca_config")
    assert torch.equal(model(input_ids=ids).logits, expected)


@pytest.mark.parametrize("back", [merge_paca, remove_paca])
def test_what_ddp_is_to_ignore_is_what_it_was(back: Any) -> None:
    model = make("llama")
    model._ddp_params_and_buffers_to_ignore = ["model.rotary_emb.inv_freq"]
    paca(model, 4, 8)
    assert "model.layers.0.mlp.up_proj.index" in model._ddp_params_and_buffers_to_ignore
    assert back(model)._ddp_params_and_buffers_to_ignore == ["model.rotary_emb.inv_freq"]


def test_columns_in_float64_are_the_weights_own() -> None:
    model = make("llama").double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 / 3)  # values that float32 does not hold
    before = weights(model)
    assert same(weights(merge_paca(paca(model, 4, 8, adapter_dtype=torch.float64))), before)


class _Quantised(nn.Linear):
    pass


def _with(change: Any) -> Any:
    def made() -> nn.Module:
        model = make("llama")
        change(model)
        return model

    return made


def _quantise(model: Any) -> None:
    model.model.layers[1].mlp.up_proj = _Quantised(32, 48)


def _tie(model: Any) -> None:
    model.model.layers[1].mlp.up_proj.weight = model.model.layers[0].mlp.up_proj.weight


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "rank-0": (make, {"rank": 0}, "rank is 0"),
    "rank-wide": (make, {"rank": 33}, "rank is 33, but model.layers.0.self_attn.q_proj has 32 input columns"),
    "alpha-0": (make, {"alpha": 0}, "alpha is 0, expected a positive number"),
    "alpha-nan": (make, {"alpha": float("nan")}, "alpha is nan"),
    "dtype": (make, {"adapter_dtype": torch.float16}, "adapter_dtype is torch.float16, expected torch.float32"),
    "seed": (make, {"seed": 1.5}, "seed is 1.5"),
    "target": (make, {"targets": ["q_proj", "c_attn"]}, "'c_attn'.*down_proj.*q_proj"),
    "not-linear": (make, {"targets": ["mlp"]}, "0.mlp cannot be adapted: it is a LlamaMLP, expected a plain nn.Linear"),
    "no-target": (make, {"targets": []}, "choose no linear layer"),
    "layer-4": (make, {"layers": range(2, 5)}, "layers holds 4, expected 0 to 3, the blocks of model.layers"),
    "layer-none": (make, {"layers": []}, r"layers is \[\]"),
    "layer-word": (make, {"layers": ["upper"]}, "layers is .'upper'.*range"),
    "subclass": (
        _with(_quantise), {"targets": ["up_proj"]}, "model.layers.1.mlp.up_proj cannot be adapted: it is a _Quantised",
    ),
    "shared": (
        _with(_tie), {"targets": ["q_proj", "up_proj"]}, "0.mlp.up_proj .*tied to model.layers.1.mlp.up_proj.weight",
    ),
    "tied-head": (
        lambda: make("llama", tie_word_embeddings=True), {"targets": ["lm_head"]}, "tied to model.embed_tokens.weight",
    ),
    "meta": (lambda: make("llama").to("meta"), {}, "on the meta device"),
    "no-blocks": (lambda: nn.Sequential(nn.Linear(8, 8)), {}, "Sequential has no list of decoder blocks.*targets="),
    "wrapped": (lambda: torch.compile(make("llama")), {}, "wrapped in OptimizedModule"),
    "twice": (lambda: paca(make("llama"), 4, 8), {}, "merge_paca"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused_before_anything_is_changed(case: str) -> None:
    build, options, words = REFUSED[case]
    model = build("llama") if build is make else build()
    before = [(n, type(m)) for n, m in model.named_modules()], [p.requires_grad for p in model.parameters()]
    with pytest.raises((ValueError, TypeError), match=words):
        paca(model, **{"rank": 4, "alpha": 8, **options})
    assert ([(n, type(m)) for n, m in model.named_modules()], [p.requires_grad for p in model.parameters()]) == before


def test_peft_adapters_are_refused() -> None:
    peft = pytest.importorskip("peft")
    model = peft.get_peft_model(make("llama"), peft.LoraConfig(target_modules="all-linear"))
    with pytest.raises(ValueError, match="merge_and_unload"):
        paca(model, 4, 8)


@pytest.mark.parametrize("back", [merge_paca, remove_paca])
def test_a_plain_model_has_nothing_to_take_off(back: Any) -> None:
    with pytest.raises(ValueError, match="no PaCA layers"):
        back(make("llama"))


def test_inference_mode_is_refused_before_anything_changes() -> None:
    model = make("gpt2")
    with torch.inference_mode(), pytest.raises(RuntimeError, match=r"inside torch.inference_mode\(\)"):
        paca(model, 4, 8)
    assert all(p.requires_grad for p in model.parameters())
