"""Small checkpoints and strategy files, made once for all tests of training."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.train.strategy import STRATEGIES
from tests.mcq import make_items, make_model, make_tokenizer, write_jsonl

# Table 3's learning rates are for a good model; a random one is taught faster.
QUICK: dict[str, Any] = {"precision": "fp32", "warmup_steps": 5, "batch": 16, "accumulation": 2, "epochs": 2}
RATES = {**dict.fromkeys(("lora", "dora", "lora-fa", "qlora", "qpaca", "paca"), 1e-2), "full": 2e-3, "bitfit": 5e-2}
QUICKER: dict[str, dict[str, Any]] = {  # of single strategies: a high rank is for a wide model
    "rslora": {"rank": 16, "learning_rate": 3e-3},
    "qlora": {"rank": 8, "alpha": 32, "max_grad_norm": 1.0, "gradient_checkpointing": False},
}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a random 'llama' or 'gpt2' with its tokenizer."""
    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind)
            make_model(kind, made[kind])
            make_tokenizer(made[kind])
        return made[kind]

    return make


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """640 items to train on."""
    return write_jsonl(make_items(640), tmp_path_factory.mktemp("data") / "train.jsonl")


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """160 of them, for tests that ask what trains and not how well: five steps."""
    return write_jsonl(make_items(160), tmp_path_factory.mktemp("few") / "train.jsonl")


@pytest.fixture
def strategy_file(tmp_path: Path) -> Callable[..., str]:
    """The path of a strategy: one that ships, made quick, with further changes."""

    def write(name: str, **changes: Any) -> str:
        path = tmp_path / f"{name}.yaml"
        fields = yaml.safe_load((STRATEGIES / f"{name}.yaml").read_text())
        fields |= QUICK | {"learning_rate": RATES[fields["method"]]} | QUICKER.get(name, {}) | changes
        fields = {key: value for key, value in fields.items() if value is not None}
        path.write_text(yaml.safe_dump(fields))
        return str(path)

    return write


def metrics_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def curve_of(out: Path) -> list[tuple[int, float, float]]:
    """What of metrics.jsonl does not depend on the machine's speed."""
    return [(m["step"], m["loss"], m["learning_rate"]) for m in metrics_of(out)]
