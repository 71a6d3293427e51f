"""paca() under transformers' Trainer, against dense weights of which only these columns get a gradient."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from kernels import PaCALinear
from kernels.paca import merge_paca, paca, remove_paca
from kernels.paca.model import paca_layers
from tests.kernels.paca.paca_models import is_fresh, live, losses, make, masked_twin, same, trained, trainer, weights

RANK, ALPHA = 4, 8  # scale 2
LAYERS = {"gpt2": 16, "llama": 28, "gpt_neox": 16, "opt": 24}


def _train_both(family: str, kind: str, folder: Path) -> None:
    """Trains both for four accumulated steps in float64; AssertionError where they differ."""
    plain = make(family, torch.float64)
    before = weights(plain)
    twin, dense = masked_twin(plain, paca(make(family, torch.float64), RANK, ALPHA, adapter_dtype=torch.float64))
    ours = paca(plain, RANK, ALPHA, adapter_dtype=torch.float64)
    assert len(paca_layers(ours)) == len(dense) == LAYERS[family]
    assert {name.rpartition(".")[2] for name, p in ours.named_parameters() if p.requires_grad} == {"columns"}
    s = ALPHA / RANK
    if kind == "sgd":  # p = W / s has gradient s dW, and s dp is what W moves by
        optimizers = [torch.optim.SGD(trained(ours), lr=0.05), torch.optim.SGD(dense, lr=0.05 * s**2)]
    else:  # Adam's step does not see the gradient's size, only eps does; a masked gradient of zero moves nothing
        optimizers = [
            torch.optim.AdamW(trained(ours), lr=1e-3, eps=1e-8, weight_decay=0.0),
            torch.optim.AdamW(dense, lr=1e-3 * s, eps=1e-8 / s, weight_decay=0.0),
        ]
    runs = [trainer(model, folder, optimizer) for model, optimizer in zip((ours, twin), optimizers, strict=True)]
    for run in runs:
        run.train()
    assert len(losses(runs[0])) == 4
    torch.testing.assert_close(losses(runs[0]), losses(runs[1]), rtol=1e-9, atol=0)
    after, expected = weights(ours), weights(twin)
    for name, weight in after.items():
        torch.testing.assert_close(weight, expected[name], rtol=0, atol=1e-10, msg=name)
    for name, layer in paca_layers(ours).items():
        old = before[f"{name}.weight"]
        kept = torch.ones(layer.in_features, dtype=torch.bool)
        kept[layer.index] = False
        rest, old_rest = (w.t() if layer.transposed else w for w in (after[f"{name}.weight"], old))
        assert torch.equal(rest[:, kept], old_rest[:, kept]), name
        assert not torch.equal(rest[:, ~kept], old_rest[:, ~kept]), name
        del before[f"{name}.weight"], after[f"{name}.weight"]
    assert same(after, before), "embeddings, norms, biases and the head are frozen"


# Each family and each optimizer in `make test`, and all of their pairs in `make test-all`.
PAIRS = [(family, kind) for family in LAYERS for kind in ("sgd", "adamw")]
FAST = [("gpt2", "sgd"), ("llama", "adamw"), ("gpt_neox", "sgd"), ("opt", "adamw")]


@pytest.mark.parametrize(
    ("family", "kind"), [pytest.param(*pair, marks=[] if pair in FAST else pytest.mark.slow) for pair in PAIRS]
)
def test_trainer_trains_as_the_dense_columns(family: str, kind: str, tmp_path: Path) -> None:
    _train_both(family, kind, tmp_path)


def test_a_missing_refresh_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PaCALinear, "refresh", lambda layer: None)
    with pytest.raises(AssertionError):
        _train_both("llama", "sgd", tmp_path)


def test_upper_blocks_alone(tmp_path: Path) -> None:
    model = paca(make("llama"), RANK, ALPHA, layers=range(2, 4))
    before = weights(model)
    trainer(model, tmp_path).train()
    moved = {name for name, w in weights(model).items() if not torch.equal(w, before[name])}
    assert len(moved) == 14 and all(name.startswith(("model.layers.2.", "model.layers.3.")) for name in moved)


def test_a_checkpoint_of_trainer_resumes_exactly_and_still_knows_the_way_back(tmp_path: Path) -> None:
    alpha = 10  # scale 2.5: columns are rounded, so that the live ones must come from the checkpoint, not from them
    pretrained = weights(make("gpt2"))
    whole = paca(make("gpt2"), RANK, alpha)
    run = trainer(whole, tmp_path / "a", save_strategy="steps", save_steps=2)
    run.train()
    resumed = paca(make("gpt2"), RANK, alpha, seed=5)  # other columns: the checkpoint says which
    again = trainer(resumed, tmp_path / "b")
    again.train(resume_from_checkpoint=str(tmp_path / "a" / "checkpoint-2"))
    assert losses(run) == losses(again)
    ours, theirs = whole.state_dict(), resumed.state_dict()
    assert same(dict(ours), dict(theirs))
    assert same(weights(remove_paca(resumed)), pretrained)
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "a" / "checkpoint-4")
    assert same(weights(plain), weights(merge_paca(whole))), "a checkpoint is one of the plain model, trained"


def test_the_best_model_is_loaded_at_the_end(tmp_path: Path) -> None:
    model = paca(make("gpt2"), RANK, ALPHA)
    more: dict[str, Any] = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 1, "save_steps": 1}
    # The worst loss counts as the best, so that it is not the last one.
    run = trainer(model, tmp_path, load_best_model_at_end=True, greater_is_better=True, learning_rate=0.5, **more)
    run.train()
    best = run.state.best_model_checkpoint
    assert best is not None and best != str(tmp_path / "checkpoint-4")
    saved = transformers.AutoModelForCausalLM.from_pretrained(best)
    assert same(weights(model), weights(saved)) and is_fresh(model)


def test_masters_in_fp32_collect_what_bf16_would_round_away(tmp_path: Path) -> None:
    model = paca(make("llama", torch.bfloat16), RANK, ALPHA)
    before = {name: layer.columns.detach().clone() for name, layer in paca_layers(model).items()}
    trainer(model, tmp_path, torch.optim.SGD(trained(model), lr=1e-6)).train()
    for name, layer in paca_layers(model).items():
        assert layer.columns.dtype == torch.float32 and layer.weight.dtype == torch.bfloat16
        assert not torch.equal(layer.columns, before[name])
        assert torch.equal(live(layer), layer.pretrained), "so small a step does not reach the weight yet"
    assert is_fresh(model)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(reentrant: bool, tmp_path: Path) -> None:
    plain, saving = (paca(make("gpt2", torch.float64), RANK, ALPHA) for _ in range(2))
    trainer(plain, tmp_path).train()
    saving.gradient_checkpointing_enable({"use_reentrant": reentrant})
    trainer(saving, tmp_path).train()
    for (name, one), (_, other) in zip(paca_layers(plain).items(), paca_layers(saving).items(), strict=True):
        torch.testing.assert_close(one.columns, other.columns, rtol=0, atol=1e-9, msg=name)


def test_autocast_over_fp32_weights(tmp_path: Path) -> None:
    model = paca(make("llama"), RANK, ALPHA)
    before = weights(model)
    trainer(model, tmp_path, bf16=True).train()
    assert is_fresh(model) and not same(weights(model), before)


def test_trainers_weight_decay_spares_the_columns_and_says_so(tmp_path: Path) -> None:
    spared, plain = paca(make("gpt2"), RANK, ALPHA), paca(make("gpt2"), RANK, ALPHA)
    with pytest.warns(UserWarning, match=r"weight_decay 0\.5 is now 0 for PaCA's columns"):
        trainer(spared, tmp_path, weight_decay=0.5).train()
    trainer(plain, tmp_path).train()
    assert same(dict(spared.state_dict()), dict(plain.state_dict()))


def test_decay_of_a_group_that_holds_other_parameters_too_is_refused(tmp_path: Path) -> None:
    model = paca(make("llama"), RANK, ALPHA)
    model.get_output_embeddings().requires_grad_()
    before = weights(model)
    with pytest.raises(ValueError, match=r"group 0 .* weight_decay 0\.5 .*parameter_groups"):
        trainer(model, tmp_path, weight_decay=0.5).train()
    assert same(weights(model), before)


def test_parameter_groups_decay_the_others_alone(tmp_path: Path) -> None:
    from kernels import parameter_groups

    model = paca(make("llama"), RANK, ALPHA)
    head: nn.Module = model.get_output_embeddings()
    head.requires_grad_()
    before = head.weight.detach().clone()
    optimizer = torch.optim.AdamW(parameter_groups(model, 0.5), lr=1e-2)
    trainer(model, tmp_path, optimizer).train()
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.5, 0.0]
    assert is_fresh(model) and not torch.equal(head.weight, before)
