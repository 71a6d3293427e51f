"""What trains beside the columns: heads, modules_to_save, embeddings, thawed parameters; saved, loaded, trained on."""

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import transformers
from torch import nn

from kernels import PaCALinear, parameter_groups
from kernels.paca import load_paca, merge_paca, paca, remove_paca, save_paca
from kernels.paca.model import paca_layers
from tests.kernels.paca.paca_models import make, same, trained, weights

SIZES: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip
IDS, LABELS = torch.arange(3, 23).view(2, 10), torch.tensor([0, 1])


def bert(seed: int = 0, kind: Any = transformers.BertForSequenceClassification, **more: Any) -> Any:
    torch.manual_seed(seed)
    return kind(transformers.BertConfig(**SIZES, **more)).eval()


def with_fresh_head(seed: int = 9) -> Any:
    """The base model, whose classifier from_pretrained would draw anew."""
    model, other = bert(), bert(seed)
    model.classifier.load_state_dict(other.classifier.state_dict())
    return model


def learn(model: Any, steps: int = 2, **inputs: Any) -> list[float]:
    optimizer, losses = torch.optim.AdamW(parameter_groups(model, 0.01), lr=1e-2), []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(input_ids=IDS, **inputs).loss
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def trainable(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad and not name.endswith(".columns")}


def test_a_new_head_trains_and_comes_back_with_the_columns(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"classifier of BertForSequenceClassification.*is new") as said:
        model = paca(bert(), 4, 10)
    assert len(said) == 1 and trainable(model) == {"classifier.weight", "classifier.bias"}
    before = model.classifier.weight.detach().clone()
    learn(model, labels=LABELS)
    assert not torch.equal(model.classifier.weight, before)
    save_paca(model, tmp_path / "delta")
    save_paca(model, tmp_path / "merged", merged=True)
    again = load_paca(with_fresh_head(), tmp_path / "delta")
    assert same(dict(again.state_dict()), dict(model.state_dict())) and trainable(again) == trainable(model)
    plain = load_paca(with_fresh_head(), tmp_path / "delta", trainable=False)
    merged = transformers.BertForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    expected = model(input_ids=IDS).logits
    assert torch.equal(plain(input_ids=IDS).logits, expected) and torch.equal(merged(input_ids=IDS).logits, expected)
    assert not any(p.requires_grad for p in plain.parameters())
    assert learn(again, 1, labels=LABELS) == learn(model, 1, labels=LABELS)
    head = model.classifier.weight.detach().clone()
    assert torch.equal(remove_paca(model).classifier.weight, head), "what trained whole stays trained"


def test_a_head_onto_a_base_by_its_path_of_another_class(tmp_path: Path) -> None:
    bert(kind=transformers.BertForMaskedLM).save_pretrained(tmp_path / "base")
    with pytest.warns(UserWarning, match="is new"):
        model = paca(transformers.BertForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3), 4, 8)
    assert {name.rpartition(".")[0] for name in trainable(model)} == {"classifier", "bert.pooler.dense"}, "both drawn"
    model.bert.pooler.requires_grad_(False)
    learn(model.eval(), labels=LABELS)
    save_paca(model, tmp_path / "delta")
    again = load_paca(str(tmp_path / "base"), tmp_path / "delta")
    assert isinstance(again, transformers.BertForSequenceClassification)
    assert same(weights(again), weights(model)) and trainable(again) == trainable(model)


def test_what_the_user_builds_around_a_loaded_model_trains_and_is_saved(tmp_path: Path) -> None:
    make("llama").save_pretrained(tmp_path / "base")

    def built() -> nn.ModuleDict:
        inner = transformers.LlamaModel.from_pretrained(tmp_path / "base")
        return nn.ModuleDict({"inner": inner, "value": nn.Linear(32, 1)})

    with pytest.warns(UserWarning, match="value of ModuleDict is new"):
        model = paca(built(), 4, 8)
    assert trainable(model) == {"value.weight", "value.bias"}
    save_paca(model, tmp_path / "delta")
    again = load_paca(built(), tmp_path / "delta")
    assert same(weights(again), weights(model)) and trainable(again) == trainable(model)


HEADS: dict[str, tuple[Any, Any, set[str]]] = {
    "tokens": (transformers.BertForTokenClassification, transformers.BertConfig(**SIZES), {"classifier"}),
    "questions": (transformers.BertForQuestionAnswering, transformers.BertConfig(**SIZES), {"qa_outputs"}),
    "llama": (
        transformers.LlamaForSequenceClassification,
        transformers.LlamaConfig(**SIZES, pad_token_id=0), {"score"},
    ),
    "distilbert": (
        transformers.DistilBertForSequenceClassification,
        transformers.DistilBertConfig(vocab_size=50, dim=32, hidden_dim=48, n_layers=2, n_heads=4),
        {"pre_classifier", "classifier"},
    ),
    "t5": (
        transformers.T5ForQuestionAnswering,
        transformers.T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4), {"qa_outputs"},
    ),
    "vit": (
        transformers.ViTForImageClassification,
        transformers.ViTConfig(
            hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, image_size=16,
            patch_size=8,
        ),
        {"classifier"},
    ),
    "xlnet": (
        transformers.XLNetForQuestionAnsweringSimple,
        transformers.XLNetConfig(vocab_size=50, d_model=32, n_layer=2, n_head=4, d_inner=48), {"qa_outputs"},
    ),
    "xvector": (
        transformers.Wav2Vec2ForXVector,
        transformers.Wav2Vec2Config(
            hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, conv_dim=(16, 16),
            conv_kernel=(3, 3), conv_stride=(2, 2), num_feat_extract_layers=2, num_conv_pos_embeddings=4,
            num_conv_pos_embedding_groups=2, tdnn_dim=(16, 16), tdnn_kernel=(3, 3), tdnn_dilation=(1, 1),
            xvector_output_dim=16,
        ),
        {"projector", "tdnn", "feature_extractor", "classifier", "objective"},
    ),
    "roberta": (
        transformers.RobertaForSequenceClassification,
        transformers.RobertaConfig(**SIZES), {"classifier"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", HEADS)
def test_which_part_is_the_head(case: str) -> None:
    kind, config, heads = HEADS[case]
    with pytest.warns(UserWarning, match="is new"):
        model = paca(kind(config), 4, 8)
    assert {name.split(".")[0] for name in trainable(model)} == heads
    assert all(p.requires_grad for head in heads for p in model.get_submodule(head).parameters())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "kind", [transformers.BertForMaskedLM, transformers.BertForPreTraining, transformers.BertModel]
)
def test_a_pretrained_head_stays_frozen(kind: Any) -> None:
    assert trainable(paca(bert(kind=kind), 4, 8)) == set()


def test_named_layers_of_a_head_are_not_adapted_but_train_whole() -> None:
    kind, config, _ = HEADS["roberta"]
    with pytest.warns(UserWarning, match="is new"):
        model = paca(kind(config), 4, 8, targets=["dense"])
    assert all(name.startswith("roberta.encoder") for name in paca_layers(model))
    with pytest.raises(ValueError, match=r"choose no linear layer .* beside classifier, which trains whole"):
        paca(kind(config), 4, 8, targets=["classifier.dense"])


def test_modules_to_save_train_whole_in_any_model(tmp_path: Path) -> None:
    model = paca(make("llama", tie_word_embeddings=True), 4, 8, modules_to_save=["embed_tokens", "input_layernorm"])
    norms = {f"model.layers.{i}.input_layernorm.weight" for i in range(4)}
    assert trainable(model) == norms | {"model.embed_tokens.weight"}
    learn(model, labels=IDS)
    save_paca(model, tmp_path)
    held = safetensors.torch.load_file(tmp_path / "paca_model.safetensors")
    assert "lm_head.weight" not in held and norms < held.keys(), "tied ones once, and nothing that is frozen"
    again = load_paca(make("llama", tie_word_embeddings=True), tmp_path)
    assert again.paca_config == model.paca_config and again.paca_config.modules_to_save[0] == "embed_tokens"
    assert same(dict(again.state_dict()), dict(model.state_dict())) and again.lm_head.weight is again.get_parameter(
        "model.embed_tokens.weight"
    )
    inside = paca(make("llama"), 4, 8, modules_to_save=["q_proj"])
    assert not any("q_proj" in name for name in paca_layers(inside)) and len(trainable(inside)) == 4


@pytest.mark.parametrize(
    ("names", "error", "words"),
    [
        (["head"], ValueError, r"modules_to_save names 'head', which LlamaForCausalLM does not have.*lm_head.*norm"),
        (["act_fn"], ValueError, "'act_fn'.* has no parameters"),
        ("lm_head", TypeError, r"modules_to_save is 'lm_head', expected a list of names"),
        ([1], TypeError, "expected a list of names"),
        (["model"], ValueError, "choose no linear layer .* beside model, which trains whole"),
    ],
)
def test_names_that_cannot_be_kept(names: Any, error: Any, words: str) -> None:
    model = make("llama")
    with pytest.raises(error, match=words):
        paca(model, 4, 8, modules_to_save=names)
    assert not paca_layers(model) and all(p.requires_grad for p in model.parameters())


def test_whatever_was_thawed_is_saved_and_thawed_again(tmp_path: Path) -> None:
    model = paca(make("gpt2"), 4, 8)
    model.transformer.ln_f.requires_grad_()
    name, layer = next(iter(paca_layers(model).items()))
    layer.bias.requires_grad_()
    learn(model, labels=IDS)
    assert not torch.equal(layer.bias, make("gpt2").get_submodule(name).bias)
    save_paca(model, tmp_path)
    again = load_paca(make("gpt2"), tmp_path)
    assert same(dict(again.state_dict()), dict(model.state_dict()))
    assert (
        trainable(again)
        == trainable(model)
        == {f"{name}.base.bias", "transformer.ln_f.weight", "transformer.ln_f.bias"}
    )
    assert learn(again, 1, labels=IDS) == learn(model, 1, labels=IDS)
    assert merge_paca(model).get_submodule(name).bias.requires_grad


def test_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    resized = make("llama")
    resized.resize_token_embeddings(110)
    for names in (["embed_tokens", "lm_head"], []):
        model = resized if names else make("llama")
        if not names:
            model.resize_token_embeddings(110)
        save_paca(paca(model, 4, 8, modules_to_save=names), tmp_path)
        base = make("llama")
        with pytest.raises(ValueError, match=r"model.embed_tokens.weight .*resize_token_embeddings\(110\)"):
            load_paca(base, tmp_path)
        assert not paca_layers(base) and all(p.requires_grad for p in base.parameters())
        base.resize_token_embeddings(110)
        again = load_paca(base, tmp_path)
        assert not names or same(weights(again), weights(model))
    with pytest.warns(UserWarning, match="is new"):
        save_paca(paca(bert(num_labels=5), 4, 8), tmp_path)
    with pytest.raises(ValueError, match=r"classifier.weight was saved with shape \(5, 32\).* \(2, 32\).*num_labels"):
        load_paca(bert(), tmp_path)
    with pytest.raises(ValueError, match=r"classifier.weight was saved, but BertForMaskedLM has none"):
        load_paca(bert(kind=transformers.BertForMaskedLM), tmp_path)


def test_running_statistics_of_batch_norms_come_along(tmp_path: Path) -> None:
    def net() -> nn.ModuleDict:
        torch.manual_seed(0)
        return nn.ModuleDict({"a": nn.Linear(8, 8), "norm": nn.BatchNorm1d(8)})

    def run(model: Any) -> torch.Tensor:
        return model["norm"](model["a"](torch.ones(3, 8) * torch.arange(3)[:, None]))

    model = paca(net(), 2, 4, targets=["a"])
    run(model.train())
    save_paca(model, tmp_path)
    again = load_paca(net(), tmp_path)
    assert torch.equal(run(again.eval()), run(model.eval())) and not torch.equal(run(net().eval()), run(model))


def test_a_checkpoint_of_format_1_is_read(tmp_path: Path) -> None:
    model = paca(make("gpt2"), 4, 8)
    learn(model, labels=IDS)
    layers = paca_layers(model)
    config = {
        "format": 1, "base_model": None, "rank": 4, "alpha": 8, "targets": "all-linear", "layers": None, "seed": 0,
        "adapter_dtype": "float32",
        "shapes": {name: {"in": layer.in_features, "out": layer.out_features} for name, layer in layers.items()},
    }  # fmt: skip
    tensors = {
        f"{name}.{part}": t.detach().clone()
        for name, layer in layers.items()
        for part, t in (("columns", layer.columns), ("index", layer.index))
    }
    text = json.dumps(config)
    (tmp_path / "paca_config.json").write_text(text)
    safetensors.torch.save_file(tensors, tmp_path / "paca_model.safetensors", {"format": "pt", "paca_config": text})
    assert same(dict(load_paca(make("gpt2"), tmp_path).state_dict()), dict(model.state_dict()))


def test_groups_and_decay_of_a_head_beside_columns() -> None:
    with pytest.warns(UserWarning, match="is new"):
        model = paca(bert(), 4, 8)
    decayed, spared = parameter_groups(model, 0.1)
    assert {id(p) for p in decayed["params"]} == {id(p) for p in model.classifier.parameters()}
    assert {id(p) for p in spared["params"]} == {id(m.columns) for m in model.modules() if isinstance(m, PaCALinear)}
    assert not any("classifier" in name for name in model._ddp_params_and_buffers_to_ignore)
    model(input_ids=IDS, labels=LABELS).loss.backward()
    with pytest.raises(ValueError, match=r"parameter_groups\(model, weight_decay\)"):
        torch.optim.AdamW(trained(model), weight_decay=0.1).step()
