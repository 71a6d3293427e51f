"""LISA under transformers' Trainer: which blocks move in which step, what the optimizer keeps, and how it goes on."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments

from bench.case.shapes import lisa_stages, takes_turns
from bench.errors import UserError
from bench.train.lisa import Lisa
from tests.models.tiny import LLAMA

BLOCKS, STEPS, EVERY = 4, 10, 2


def model_of(method: str) -> nn.Module:
    torch.manual_seed(0)
    config = {name: value for name, value in LLAMA.items() if name != "model_type"}
    model = LlamaForCausalLM(LlamaConfig(**config))
    if method == "full":
        return model
    tuned: nn.Module = get_peft_model(
        model, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    )
    return tuned


def values_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


class Watch(TrainerCallback):
    """After each step: which parameters have moved, and of which the optimizer keeps anything."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.before = model, values_of(model)
        self.names = {id(p): name for name, p in model.named_parameters()}
        self.moved: list[set[str]] = []
        self.kept: list[set[str]] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **of: Any) -> None:
        now = values_of(self.model)
        self.moved.append({name for name, value in now.items() if not torch.equal(value, self.before[name])})
        self.kept.append({self.names[id(p)] for p in of["optimizer"].state})
        self.before = now


def train(model: nn.Module, out: Path, word: str, watch: Watch | None = None, steps: int = STEPS, **more: Any) -> None:
    """`more`: of the arguments; resume: whether to go on from the checkpoint."""
    resume = more.pop("resume", False)
    data = [{"input_ids": t, "labels": t} for t in torch.randint(0, 101, (2 * STEPS, 8))]
    arguments = TrainingArguments(
        output_dir=str(out), max_steps=steps, per_device_train_batch_size=1, gradient_accumulation_steps=2,
        learning_rate=1e-3, lr_scheduler_type="constant", report_to="none", use_cpu=True, disable_tqdm=True,
        **{"save_strategy": "no"} | more,
    )  # fmt: skip
    lisa = Lisa(model, word, EVERY)
    trainer = Trainer(model, arguments, train_dataset=data, callbacks=[lisa, *([watch] if watch else [])])
    trainer.train(resume_from_checkpoint=resume or None)


def in_blocks(names: set[str], blocks: tuple[int, ...]) -> set[str]:
    return {n for n in names if any(f".layers.{i}." in n for i in blocks)}


@pytest.mark.parametrize(("method", "word"), [("full", "lisa-1"), ("lora", "lisa-3")])
def test_blocks_take_turns(method: str, word: str, tmp_path: Path) -> None:
    """A naive count of steps: which blocks may move, and of which there are moments; those outside always."""
    torch.manual_seed(1)
    model = model_of(method)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    watch = Watch(model)
    train(model, tmp_path, word, watch)
    stages = lisa_stages(word, BLOCKS)
    assert len(watch.moved) == STEPS and len(stages) == 4
    outside = {n for n in trained if ".layers." not in n}
    assert bool(outside) == (method == "full")
    for step, (moved, kept) in enumerate(zip(watch.moved, watch.kept, strict=True)):
        expected = outside | in_blocks(trained, stages[(step // EVERY) % len(stages)])
        assert moved == expected and kept == expected, step
    assert set().union(*watch.moved) == trained


@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_training_goes_on_with_the_blocks_that_were_due(method: str, tmp_path: Path) -> None:
    """Cut off after seven steps, in the middle of a stage, it ends where one that was not cut off ends."""
    whole, half, rest = model_of(method), model_of(method), model_of(method)
    torch.manual_seed(1)
    train(whole, tmp_path / "whole", "lisa-2")
    torch.manual_seed(1)
    train(half, tmp_path / "cut", "lisa-2", steps=7, save_strategy="steps", save_steps=7)
    torch.manual_seed(1)
    watch = Watch(rest)
    train(rest, tmp_path / "cut", "lisa-2", watch, resume=True)
    assert len(watch.kept) == STEPS - 7
    first = in_blocks(watch.kept[0], tuple(range(BLOCKS)))
    assert first == in_blocks(first, lisa_stages("lisa-2", BLOCKS)[1]), "steps 6 and 7 are of the second stage"
    ended, expected = values_of(rest), values_of(whole)
    assert all(torch.equal(ended[name], value) for name, value in expected.items())


def test_everything_is_what_is_to_be_saved() -> None:
    model = model_of("lora")
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert Lisa(model, "lisa-1", 5).everything.keys() == trained


def test_more_than_one_process_is_refused() -> None:
    class Arguments:
        world_size = 2

    with pytest.raises(UserError, match="lisa-G trains in one process, and there are 2"):
        Lisa(model_of("full"), "lisa-1", 5).on_train_begin(Arguments(), None, None)
    assert takes_turns("lisa-1") and not takes_turns("every-2nd")
