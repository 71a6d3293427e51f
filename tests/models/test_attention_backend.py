"""The attention kernel that torch chose, read off autograd's graph."""

from pathlib import Path

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.models.attention_backend import attention_backend
from bench.models.build import build
from bench.sweeps.expand import make_plan
from tests.models.tiny import LLAMA, write_config


@pytest.mark.parametrize(("backend", "name"), [(SDPBackend.FLASH_ATTENTION, "flash"), (SDPBackend.MATH, "math")])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_it_is_the_one_that_ran(tmp_path: Path, method: str, backend: SDPBackend, name: str) -> None:
    """Of a model whose upper layer alone trains, too."""
    (tmp_path / "s.yaml").write_text(f"""
description: one model
axes: {{level: model, model: {write_config(tmp_path, LLAMA)}, batch: 1, seq: 8, precision: fp32, trainable_layers: 1}}
methods: [{{method: full}}, {{method: lora, rank: 2, alpha: 4}}]
""")
    case = next(c for c in make_plan(str(tmp_path / "s.yaml"), on_cpu=True).cases if c.method == method)
    work = build(case, "cpu")
    with sdpa_kernel(backend):
        out = work.forward()
    assert not isinstance(out, tuple) and attention_backend(out) == name
    assert attention_backend(out.detach()) is None
