"""What a training and an evaluation say first: before torch is imported, which takes seconds."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, Bench

Checkpoint = Callable[[str], Path]

# In the place of torch: the first to import it ends the process there.
TORCH = "import os, sys\nsys.stderr.write('torch\\n')\nsys.stderr.flush()\nos._exit(7)\n"


@pytest.fixture
def until_torch(bench: Bench, tmp_path: Path) -> Callable[..., list[str]]:
    """The lines that `python -m bench` says until it imports torch."""
    (tmp_path / "fake" / "torch").mkdir(parents=True)
    (tmp_path / "fake" / "torch" / "__init__.py").write_text(TORCH)
    bench.env |= {"PYTHONPATH": f"{ROOT}:{tmp_path / 'fake'}", "CUDA_VISIBLE_DEVICES": ""}

    def call(*arguments: object) -> list[str]:
        done: subprocess.CompletedProcess[str] = bench(*arguments)
        assert done.returncode == 7, done.stderr
        said = done.stderr.splitlines()
        assert said[-1] == "torch"
        return said[:-1]

    return call


def test_a_training_says_what_it_does(
    until_torch: Callable[..., list[str]], checkpoint: Checkpoint, few: Path, tmp_path: Path
) -> None:
    model = checkpoint("llama")
    said = until_torch("train", "--strategy", "paca", "--model", model, "--data", few, "--out", tmp_path / "out")
    assert said == [f"paca: {model.name}, amp-fp16, cpu; reading train.jsonl", "160 examples; loading"]
    assert not (tmp_path / "out").exists()


def test_an_evaluation_says_what_it_does(
    until_torch: Callable[..., list[str]], checkpoint: Checkpoint, few: Path, tmp_path: Path
) -> None:
    model = checkpoint("llama")
    said = until_torch("evaluate", model, "--data", few, "--shots", 0, "--out", tmp_path / "out")
    assert said == [f"{model.name}: 0-shot, cpu; reading train.jsonl", "160 items; loading the model"]
