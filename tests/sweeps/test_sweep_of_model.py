"""What `--model` makes of a sweep: the lengths that count, and sweeps that have nothing of a model."""

import json
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.sweeps.of_model import ModelRequest, model_plan
from tests.commands.advise.tiny import TINY


def test_lengths_of_a_gpu_do_not_matter_on_a_cpu(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TINY | {"max_position_embeddings": 64}))
    request = ModelRequest(str(tmp_path), sweep="table2")
    assert {c.seq for c in model_plan(request, on_cpu=True).cases} == {32}
    with pytest.raises(UserError, match=r"--seq: .* allows 64 tokens at most"):
        model_plan(request, on_cpu=False)


def test_a_sweep_without_models_is_refused() -> None:
    with pytest.raises(UserError, match="--model: the sweep smoke measures nothing of a model, but square-64 and"):
        model_plan(ModelRequest("tinyllama", sweep="smoke"), on_cpu=True)
