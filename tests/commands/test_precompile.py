"""Compiling beforehand: which layers, and in processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.commands import precompile
from bench.devices import gpus
from bench.sweeps.expand import make_plan
from tests.conftest import ROOT, Cli


def test_precompiling_launches_each_layer_of_the_sweeps_once(tmp_path: Path) -> None:
    """Of whole models and of single layers; on the CPU the same calls take the reference."""
    (tmp_path / "s.yaml").write_text("""
description: a model and layers
axes: {batch: 1, seq: 16, precision: fp32}
methods:
  - {method: full, level: model, model: tinyllama}
  - {method: lora, impl: triton, rank: 4, alpha: 8, dropout: 0.1, level: model, model: [tinyllama, gpt2-medium]}
  - {method: paca, impl: triton, rank: 4, alpha: 8, level: linear, layer: [square-64, square-96]}
""")
    layers = precompile.layers_of(make_plan(str(tmp_path / "s.yaml"), on_cpu=False).cases)
    found = [(c.method, c.model, c.layer) for c in layers]
    assert len(layers) == len(set(layers)) and ("paca", None, "square-64") in found
    assert {(c.tokens, c.dropout) for c in layers if c.model} == {(16, 0.1), (64, 0.0), (64, 0.1)}, (
        "the check's as well"
    )
    ours = {layer for method, model, layer in found if (method, model) == ("lora", "tinyllama")}
    assert {"self_attn.q_proj", "self_attn.k_proj", "mlp.gate_proj", "mlp.down_proj"} <= ours
    assert "self_attn.o_proj" not in ours, "of q_proj's shape"
    assert {layer for method, model, layer in found if model == "gpt2-medium"} == {
        "attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"
    }  # fmt: skip
    assert [precompile.launch(c, "cpu") for c in layers if c.layer == "square-64"] == [None, None]
    assert "square-64" in (precompile.launch(next(c for c in layers if c.layer == "square-64"), "nowhere") or "")


def test_the_correctness_checks_kernels_are_compiled_beforehand() -> None:
    """A whole model is checked on 128 tokens, a layer alone on 2048 at most, both with and without dropout."""
    table1 = precompile.layers_of(make_plan("table1", on_cpu=False).cases)
    assert {(c.tokens, c.dropout) for c in table1 if c.method == "lora"} == {
        (2048, 0.1), (4096, 0.1), (128, 0.0), (128, 0.1)
    }  # fmt: skip
    assert {c.tokens for c in table1 if c.method == "paca"} == {2048, 4096, 128}
    peers = precompile.layers_of(make_plan("peers", on_cpu=False, where=["layer=square-1024"]).cases)
    assert {(c.tokens, c.dropout) for c in peers} == {(4096, 0.0), (2048, 0.0), (4096, None), (2048, None)}


@pytest.mark.slow
def test_precompiling_in_processes(tmp_path: Path) -> None:
    sweep = str(tmp_path / "s.yaml")
    Path(sweep).write_text("""
description: three layers
axes: {level: linear, layer: [square-32, square-64, square-96], batch: 1, seq: 16, precision: fp32}
methods: [{method: lora, impl: triton, rank: 4, alpha: 8}]
""")
    code = f"from bench.commands.precompile import precompile; raise SystemExit(precompile([{sweep!r}], 'cpu'))"
    (tmp_path / "m.py").write_text(f"if __name__ == '__main__':\n    {code}\n")
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, tmp_path / "m.py"], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("6 layers in ") and "; 0 failed" in done.stdout


@pytest.mark.skipif(bool(gpus()), reason="for machines without a GPU")
def test_without_a_gpu_it_says_so(cli: Cli) -> None:
    done = cli("precompile", "smoke")
    assert done.returncode == 2 and done.stderr.startswith("error: precompile needs an NVIDIA GPU")
