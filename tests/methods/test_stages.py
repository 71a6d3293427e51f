"""Blocks by turns (lisa-G): which parameters get gradients, what the optimizer keeps, what is refreshed."""

from pathlib import Path
from typing import Any

import pytest
import torch

from bench.case.shapes import lisa_stages
from bench.methods.registry import note, trainable_params, unsupported
from bench.models.build import build
from tests.models.tiny import LLAMA, make_case, write_config

METHODS = ("full", "lora", "paca")


@pytest.fixture
def model(tmp_path: Path) -> str:
    return write_config(tmp_path, LLAMA)


def block_of(name: str) -> int | None:
    found = [int(part) for part in name.split(".") if part.isdigit()]
    return found[0] if found else None


@pytest.mark.parametrize("word", ["lisa-1", "lisa-3"])
@pytest.mark.parametrize("method", METHODS)
def test_over_a_cycle_every_block_gets_gradients_in_its_stages_alone(model: str, method: str, word: str) -> None:
    case = make_case(model, method, trainable_layers=word)
    work = build(case, "cpu")
    assert work.stages == 4
    for i, blocks in enumerate(lisa_stages(word, 4)):
        work.select(i)
        work.backward(work.forward())
        work.check_leaves()
        got = {name for name, p in work.model.named_parameters() if p.grad is not None}
        assert {b for name in got if (b := block_of(name)) is not None} == set(blocks)
        assert any(block_of(name) is None for name in got) == (method == "full")
        assert work.trainable_params == trainable_params(case)
    assert note(work.model, case) == "mean over a cycle of 4 stages"


def test_embeddings_norm_and_head_train_in_every_stage_of_full(model: str) -> None:
    work = build(make_case(model, "full", trainable_layers="lisa-1"), "cpu")
    outside = {name for name, _ in work.model.named_parameters() if block_of(name) is None}
    assert {"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"} <= outside
    for stage in range(work.stages):
        work.select(stage)
        assert outside < {name for name, _ in work.leaves}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("optimizer", [None, "sgd"])
def test_the_optimizer_keeps_nothing_of_blocks_that_rest(model: str, method: str, optimizer: str | None) -> None:
    work = build(make_case(model, method, trainable_layers="lisa-2", optimizer=optimizer), "cpu")
    names = {id(p): name for name, p in work.model.named_parameters()}
    for stage in (0, 1, 0):
        work.select(stage)
        work.ready_optimizer()
        before = {name: p.detach().clone() for name, p in work.model.named_parameters()}
        for group in work._optimizer.param_groups:  # type: ignore[union-attr]
            group["lr"] = 0.1
        work.backward(work.forward())
        work.optimizer_step()
        current = {name for name, _ in work.leaves}
        state: Any = work._optimizer.state  # type: ignore[union-attr]
        kept = {names[id(p)] for p, s in state.items() if s.get("exp_avg") is not None}
        assert kept == (current if optimizer is None else set())
        moved = {name for name, p in work.model.named_parameters() if not torch.equal(p, before[name])}
        assert moved == current, "a block that rests stands still"


def test_what_rests_is_not_refreshed(model: str) -> None:
    work = build(make_case(model, "paca", trainable_layers="lisa-1"), "cpu")
    refreshed: list[int | None] = []
    for name, layer in work.model.named_modules():
        if hasattr(layer, "columns"):
            setattr(layer, "refresh", lambda name=name: refreshed.append(block_of(name)))  # noqa: B010
    for stage, (block,) in enumerate(lisa_stages("lisa-1", 4)):
        work.select(stage)
        work.refresh()
        assert work.has_refresh and refreshed == [block] * 7
        refreshed.clear()


def test_what_compiles_would_compile_each_stage(model: str) -> None:
    case = make_case(model, "lora", trainable_layers="lisa-2", compile="default")
    assert unsupported(case, "cpu") == "trainable_layers lisa-2 has 2 stages, and each would be compiled anew"
    assert unsupported(make_case(model, "lora", trainable_layers="lisa-2"), "cpu") is None
