"""The check of a case's optimizer: right ones pass in every precision, and each planted fault is told of its tensor."""

from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from typing import Any

import pytest
import torch

from bench.correctness.optimizer import unmoved
from bench.models.build import build
from bench.models.work import make_optimizer
from bench.runner.turns import Turns
from bench.timing.settings import MeasureSettings
from tests.correctness.planted import case_of

needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
Optimizer = torch.optim.Optimizer


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("word", [None, "sgd", pytest.param("adamw-8bit", marks=needs_bitsandbytes)])
@pytest.mark.parametrize(("method", "level"), [("full", "block"), ("lora", "model"), ("paca", "linear")])
def test_right_ones_move_everything(
    models: dict[str, str], method: str, level: str, word: str | None, precision: str
) -> None:
    axes = {"targets": "c_attn"} if method == "lora" else {}
    case = case_of(models, "gpt2", method, level, optimizer=word, precision=precision, **axes)
    told = unmoved(build(case, "cpu"))
    if word == "sgd" and precision == "bf16" and not _torch_moves_16_bits():
        assert told is not None and "off by 1 of the move" in told
    else:
        assert told is None


def _torch_moves_16_bits() -> bool:
    """torch 2.12 and 2.13 have a fused SGD for CPUs that leaves whole vectors of 16-bit values as they are."""
    weight = torch.nn.Parameter(torch.zeros(64, dtype=torch.bfloat16))
    weight.grad = torch.ones_like(weight)
    torch.optim.SGD([weight], lr=1.0, fused=True).step()
    return bool((weight != 0).all())


def _nothing(optimizer: Optimizer) -> None:
    pass


def _all_but_the_last(optimizer: Optimizer) -> None:
    optimizer.param_groups[-1]["params"][-1].grad = None
    optimizer.step()


def _uphill(optimizer: Optimizer) -> None:
    for p in (p for group in optimizer.param_groups for p in group["params"]):
        p.grad.neg_()
    optimizer.step()


def _to_nan(optimizer: Optimizer) -> None:
    optimizer.step()
    optimizer.param_groups[0]["params"][0].data.view(-1)[-1] = torch.nan


FAULTS: dict[str, tuple[Callable[[Optimizer], None], str]] = {
    "nothing": (_nothing, "off by 1 of the move, bound 0.25"),
    "all but the last": (_all_but_the_last, "lora_b wrongly: off by 1 of"),
    "uphill": (_uphill, "off by 2 of"),
    "to NaN": (_to_nan, "lora_a wrongly: off by nan of"),
}


class _Faulty:
    """An optimizer with another step."""

    def __init__(self, inner: Optimizer, step: Callable[[Optimizer], None]) -> None:
        self.param_groups, self.state, self.step = inner.param_groups, inner.state, lambda: step(inner)


@pytest.fixture
def faulty(request: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    step, told = FAULTS[request.param]
    monkeypatch.setattr("bench.models.work.make_optimizer", lambda *args: _Faulty(make_optimizer(*args), step))
    return told


@pytest.mark.parametrize("faulty", FAULTS, indirect=True)
def test_faults_are_told(models: dict[str, str], faulty: str) -> None:
    told = unmoved(build(case_of(models, "gpt2", "lora", "linear", optimizer="sgd"), "cpu"))
    assert told is not None and told.startswith("a step of optimizer sgd moves layer.lora_") and faulty in told


@pytest.mark.parametrize("faulty", ["nothing"], indirect=True)
@pytest.mark.parametrize(
    ("pass_", "word", "status"), [("step", "sgd", "wrong"), ("forward", "sgd", None), ("step", None, None)]
)
def test_it_is_asked_where_pass_step_is_timed_with_another_than_the_usual(
    models: dict[str, str], faulty: str, pass_: str, word: str | None, status: str | None
) -> None:
    heard: list[dict[str, Any]] = []
    turns = Turns(torch.device("cpu"), [pass_], MeasureSettings(), lambda _, **values: heard.append(values), None)
    turns.prepare(asdict(case_of(models, "gpt2", "bitfit", "linear", optimizer=word)))
    assert next((event["status"] for event in heard if "status" in event), None) == status
