"""Adapters saved, loaded into a fresh model, and taken off again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.case import Case
from bench.methods import apply
from bench.methods.refresh import adapter_state, draw_lora_b, load_adapter_state, refreshed_layers, remove
from bench.models.build import build
from bench.models.config import make_config, make_model
from bench.models.work import Work
from tests.models.tiny import GPT2, LLAMA, NO_DROPOUT, make_case, write_config

FIELDS = {"gpt2": {**GPT2, **NO_DROPOUT}, "llama": LLAMA}
IDS = torch.arange(24).view(2, 12)


def _logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


@pytest.fixture(params=FIELDS)
def fields(request: pytest.FixtureRequest) -> dict[str, Any]:
    return FIELDS[request.param]


def _trained(fields: dict[str, Any], method: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Case, Work]:
    """A model after two optimizer steps."""
    monkeypatch.setattr("bench.models.work.LEARNING_RATE", 0.01)
    case = make_case(write_config(folder, fields), method, trainable_layers="3")
    work = build(case, "cpu")
    for _ in range(2):
        work.backward(work.forward())
        work.optimizer_step()
        work.refresh()
        work.clear()
    return case, work


def _fresh(fields: dict[str, Any], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return make_model(make_config(fields), torch.device("cpu"), torch.float32)


@pytest.mark.parametrize("method", ["lora", "paca"])
def test_state_dict_gives_the_same_output_in_a_fresh_model(
    fields: dict[str, Any], method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, work = _trained(fields, method, tmp_path, monkeypatch)
    torch.save(work.model.state_dict(), tmp_path / "all.pt")
    fresh = _fresh(fields, seed=9)
    apply(fresh, case)
    fresh.load_state_dict(torch.load(tmp_path / "all.pt", weights_only=True))
    assert torch.equal(_logits(fresh), _logits(work.model))


@pytest.mark.parametrize("method", ["lora", "paca"])
def test_adapters_alone_give_the_same_output_on_the_same_base(
    fields: dict[str, Any], method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, work = _trained(fields, method, tmp_path, monkeypatch)
    pretrained = {k: v.clone() for k, v in _base(case, work).items()}
    torch.save(adapter_state(work.model), tmp_path / "adapters.pt")
    state = torch.load(tmp_path / "adapters.pt", weights_only=True)
    values = sum(v.numel() for k, v in state.items() if not k.endswith(".index"))
    assert values == case.trainable_params
    fresh = _fresh(fields, seed=9)
    fresh.load_state_dict(pretrained)
    before = _logits(fresh)
    apply(fresh, case)
    for layer in refreshed_layers(fresh):  # as if made with another seed: the state's columns count
        layer.restore()
        layer.index.copy_(torch.arange(len(layer.index)))
        layer.pretrained.copy_(layer.weight[:, layer.index])
    load_adapter_state(fresh, state)
    assert torch.equal(_logits(fresh), _logits(work.model))
    remove(fresh)
    assert torch.equal(_logits(fresh), before)
    assert all(torch.equal(v, pretrained[k]) for k, v in fresh.state_dict().items())


def _base(case: Case, work: Work) -> dict[str, Tensor]:
    """The base weights that the trained model started from: what a build with the same seed and nothing applied has."""
    model = build(case, "cpu").model
    remove(model)
    assert type(work.model) is type(model)
    return model.state_dict()


def test_a_state_that_does_not_fit_changes_nothing(
    fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, work = _trained(fields, "paca", tmp_path, monkeypatch)
    before = _logits(work.model)
    state = adapter_state(work.model)
    name = next(iter(state))
    with pytest.raises(ValueError, match="not the same: " + name):
        load_adapter_state(work.model, {k: v for k, v in state.items() if k != name})
    with pytest.raises(ValueError, match=r"expected \("):
        load_adapter_state(work.model, {**state, name: state[name][:1]})
    assert torch.equal(_logits(work.model), before)
    assert case.rank == 4


def test_remove_gives_lora_s_base_back_even_when_merged(fields: dict[str, Any], tmp_path: Path) -> None:
    model = _fresh(fields, seed=1)
    before = _logits(model)
    apply(model, make_case(write_config(tmp_path, fields), "lora"))
    draw_lora_b(model)
    assert not torch.equal(_logits(model), before)
    for module in model.modules():
        if hasattr(module, "merge"):
            module.merge()
    remove(model)
    assert torch.equal(_logits(model), before)
