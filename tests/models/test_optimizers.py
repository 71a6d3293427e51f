"""The axis optimizer: the same step as the optimizer takes by itself, states of the bytes that the closed form says."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.case import Case
from bench.methods.registry import methods, unsupported
from bench.models.build import build
from bench.models.work import LEARNING_RATE
from bench.roofline.memory import need
from bench.roofline.optimizer_states import resident_bytes, state_bytes
from tests.models.tiny import GPT2, LLAMA, NO_DROPOUT, make_case, write_config

needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
FIELDS = {"llama": {**LLAMA, "hidden_size": 128}, "gpt2": {**GPT2, **NO_DROPOUT, "n_embd": 64, "vocab_size": 2000}}


def _optimizer(word: str | None, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if word == "adamw-8bit":
        from bitsandbytes.optim import AdamW8bit

        return AdamW8bit(groups, lr=LEARNING_RATE)
    if word == "sgd":
        return torch.optim.SGD(groups, lr=LEARNING_RATE)
    return torch.optim.AdamW(groups, lr=LEARNING_RATE)


WORDS = [None, "sgd", pytest.param("adamw-8bit", marks=needs_bitsandbytes)]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("method", ["full", "lora", "paca"])
def test_a_step_is_the_optimizer_s_own(word: str | None, method: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("bench.models.work.LEARNING_RATE", 1e-2)
    monkeypatch.setattr(f"{__name__}.LEARNING_RATE", 1e-2)
    case = make_case(write_config(tmp_path, FIELDS["llama"]), method, "block", optimizer=word)
    work, twin = build(case, "cpu"), build(case, "cpu")
    decay = 0.0 if method == "paca" else 0.01
    theirs = _optimizer(word, [{"params": [p for n, p in twin.leaves if n != "x"], "weight_decay": decay}])
    before = {name: leaf.detach().clone() for name, leaf in work.leaves}
    for _ in range(2):
        for w in (work, twin):
            w.clear()
            w.backward(w.forward())
        work.optimizer_step()
        theirs.step()
    for (name, ours), (_, other) in zip(work.leaves, twin.leaves, strict=True):
        torch.testing.assert_close(ours, other, msg=lambda text, name=name: f"{name}: {text}")
        assert name == "x" or not torch.equal(ours, before[name])


@pytest.mark.parametrize(
    ("method", "word"),
    [(m, None) for m in ("full", "lora", "paca")]  # AdamW of the others: tests/roofline/test_memory.py
    + [("lora", "sgd")]
    + [pytest.param(m, "adamw-8bit", marks=needs_bitsandbytes) for m in methods()],
)
@pytest.mark.parametrize("family", FIELDS)
def test_states_have_the_bytes_of_the_closed_form(method: str, family: str, word: str | None, tmp_path: Path) -> None:
    """On tensors above and below the least that has 8-bit states."""
    rank = 40 if "rank" in methods()[method].axes else None
    case = make_case(write_config(tmp_path, FIELDS[family]), method, optimizer=word, rank=rank)
    work = build(case, "cpu")
    work.backward(work.forward())
    work.optimizer_step()
    assert work._optimizer is not None
    held = {
        t.data_ptr(): t.numel() * t.element_size()
        for state in work._optimizer.state.values()
        for name, t in state.items()
        if isinstance(t, torch.Tensor) and name != "step" and not name.startswith("qmap")
    }
    assert state_bytes(case, 4) == pytest.approx(sum(held.values()), rel=0.005)
    assert need(case, step=True).optimizer == state_bytes(case, 4) and need(case, step=False).optimizer == 0


def test_what_is_paged_need_not_be_on_the_gpu() -> None:
    full = make_case("tinyllama", "full", optimizer="paged-adamw", precision="bf16")
    assert state_bytes(full, 2) == 8 * 1_100_048_384
    assert 0 < resident_bytes(full, 2) < 1e6, "the norms"
    assert resident_bytes(replace(full, optimizer="adamw-8bit"), 2) == state_bytes(
        replace(full, optimizer="adamw-8bit"), 2
    )


@needs_bitsandbytes
@pytest.mark.parametrize("word", ["paged-adamw", "paged-adamw-8bit"])
def test_what_bitsandbytes_does_not_page_must_be_on_the_gpu(word: str, tmp_path: Path) -> None:
    """By bitsandbytes' own code. On a CPU it pages nothing, yet asks get_state_buffer for what it would page."""
    from bitsandbytes import optim

    kind: Any = optim.AdamW8bit if word.endswith("8bit") else optim.AdamW
    buffers: list[torch.Tensor] = []

    class Noted(kind):  # type: ignore[misc]
        """Notes the states that get_state_buffer would page, those of tensors of 100,000 values and more."""

        def get_state_buffer(self, p: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
            buffer: torch.Tensor = super().get_state_buffer(p, dtype)
            if p.numel() >= 1e5:
                buffers.append(buffer)
            return buffer

    fields = {**LLAMA, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2}
    case = make_case(write_config(tmp_path, fields), "full", optimizer=word)
    work = build(case, "cpu")
    work.backward(work.forward())
    optimizer = Noted([leaf for _, leaf in work.leaves])
    optimizer.step()
    states = [
        t
        for state in optimizer.state.values()
        for name, t in state.items()
        if isinstance(t, torch.Tensor) and name != "step" and not name.startswith("qmap")
    ]
    paged = sum(t.nbytes for t in buffers)
    assert paged > 0
    assert resident_bytes(case, 4) == pytest.approx(sum(t.nbytes for t in states) - paged, rel=0.005)
    assert state_bytes(case, 4) == pytest.approx(sum(t.nbytes for t in states), rel=0.005)


def _reason(word: str, device: str) -> str | None:
    case: Case = make_case(None, "full", "linear", layer="square-16", optimizer=word)
    return unsupported(case, device)


def test_where_bitsandbytes_is_missing_or_serves_no_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.methods.requirements.find_spec", lambda name: None)
    for word in ("adamw-8bit", "paged-adamw", "paged-adamw-8bit"):
        told = f"optimizer {word} needs the package bitsandbytes: pip install bitsandbytes"
        assert _reason(word, "cpu") == _reason(word, "cuda") == told
    assert _reason("sgd", "cpu") is None
    monkeypatch.setattr("bench.methods.requirements.find_spec", lambda name: object())
    assert _reason("adamw-8bit", "cpu") is None and _reason("paged-adamw", "cuda") is None
    assert "on a CPU there is nothing to page" in (_reason("paged-adamw", "cpu") or "")


def test_no_paged_states_where_blocks_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.methods.requirements.find_spec", lambda name: object())
    path = write_config(tmp_path, FIELDS["llama"])
    for word in ("paged-adamw", "paged-adamw-8bit"):
        assert unsupported(make_case(path, "lora", trainable_layers="lisa-1", optimizer=word), "cuda") == (
            f"trainable_layers lisa-1 with optimizer {word}: bitsandbytes never frees paged states, and those of each"
            " stage would stay"
        )
        assert unsupported(make_case(path, "lora", trainable_layers="1", optimizer=word), "cuda") is None
    assert unsupported(make_case(path, "lora", trainable_layers="lisa-1", optimizer="adamw-8bit"), "cuda") is None
