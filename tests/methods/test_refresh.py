"""What is drawn and refreshed between steps, and that a state dict holds all of it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bench.case import Case
from bench.methods.refresh import draw_lora_b
from bench.methods.registry import apply
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


@pytest.mark.parametrize("method", ["full", "paca"])
def test_drawing_b_leaves_a_model_without_branches_as_it_is(
    fields: dict[str, Any], method: str, tmp_path: Path
) -> None:
    work = build(make_case(write_config(tmp_path, fields), method), "cpu")
    before = {name: value.clone() for name, value in work.model.state_dict().items()}
    draw_lora_b(work.model)
    assert all(torch.equal(value, before[name]) for name, value in work.model.state_dict().items())
